// A team of threads that runs one function at a time, together, with barriers in between.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace splitformer {

// A word that threads can wait on: they look at it for a moment and then sleep in the kernel, so
// that waiting costs little when it is short and nobody's core when it is long.
class Signal {
 public:
  uint32_t Read() const { return word_.load(std::memory_order_acquire); }
  void Raise();

  // Returns whether it had to sleep.
  bool WaitWhile(uint32_t value, int spins);

 private:
  std::atomic<uint32_t> word_{0};
  std::atomic<int> sleepers_{0};
};

class Team {
 public:
  using Work = std::function<void(int member)>;

  // `size` members; the caller of Run is member 0, the others are threads of the team. `cores`, if
  // not empty, are the cores to pin members 1, 2, ... to; the caller's thread is its own business.
  Team(int size, const std::vector<int>& cores);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // Runs `work` on all members and returns when all are done. One call at a time.
  void Run(const Work& work);

  // Inside Run: waits until all members are here. What one wrote before, all see after.
  void Barrier(int member);

 private:
  // Where a member was last seen; while it is confined to some cores, where else it may be.
  struct alignas(64) Place {
    std::atomic<int> core{-1};
    bool confined = false;
    cpu_set_t allowed;
  };

  void Serve(int member);
  void TakePart(int member);

  // Moves a member that has slept off the others' cores, until the end of the run. Linux may wake a
  // thread on the core of the one that wakes it although others are free: to a virtual machine,
  // cores that sleep look taken. Members on one core would take turns, barrier by barrier.
  void StandApart(int member);

  const int size_;
  const Work* work_ = nullptr;
  bool closing_ = false;
  alignas(64) Signal start_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) Signal passed_;
  std::vector<Place> places_;
  std::vector<std::thread> threads_;
};

}  // namespace splitformer
