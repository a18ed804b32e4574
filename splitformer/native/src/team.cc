#include "team.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace splitformer {
namespace {

// How often to look before sleeping. A look takes about 20 ns. Members of a barrier arrive within
// microseconds of each other unless one has lost its core, and then spinning would keep that core
// busy; between two steps there is some Python to run.
constexpr int kBarrierSpins = 2000;
constexpr int kIdleSpins = 4000;

void Futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  static_assert(sizeof(*word) == sizeof(uint32_t));
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation, value, nullptr, nullptr, 0);
}

void Pin(std::thread& thread, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(core), &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // best effort
}

}  // namespace

void Signal::Raise() {
  // Sequentially consistent on both sides: either we see the sleeper here, or its futex call sees
  // the new value and does not sleep.
  word_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) Futex(&word_, FUTEX_WAKE_PRIVATE, INT_MAX);
}

bool Signal::WaitWhile(uint32_t value, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (Read() != value) return false;
    _mm_pause();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (word_.load(std::memory_order_seq_cst) == value) Futex(&word_, FUTEX_WAIT_PRIVATE, value);
  sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  return true;
}

Team::Team(int size, const std::vector<int>& cores) : size_(size), places_(size_t(size)) {
  for (int member = 1; member < size; ++member) {
    threads_.emplace_back(&Team::Serve, this, member);
    const size_t index = static_cast<size_t>(member - 1);
    if (index < cores.size()) Pin(threads_.back(), cores[index]);
  }
}

Team::~Team() {
  closing_ = true;
  start_.Raise();
  for (std::thread& thread : threads_) thread.join();
}

void Team::Run(const Work& work) {
  work_ = &work;
  start_.Raise();
  TakePart(0);
}

void Team::Barrier(int member) {
  if (size_ == 1) return;
  places_[size_t(member)].core.store(sched_getcpu(), std::memory_order_relaxed);
  const uint32_t round = passed_.Read();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.Raise();
  } else if (passed_.WaitWhile(round, kBarrierSpins)) {
    StandApart(member);
  }
}

void Team::Serve(int member) {
  for (uint32_t seen = 0;;) {
    const bool slept = start_.WaitWhile(seen, kIdleSpins);
    ++seen;
    if (closing_) return;
    if (slept) StandApart(member);
    TakePart(member);
  }
}

void Team::TakePart(int member) {
  (*work_)(member);
  Barrier(member);
  Place& place = places_[size_t(member)];
  if (place.confined) sched_setaffinity(0, sizeof place.allowed, &place.allowed);
  place.confined = false;
}

void Team::StandApart(int member) {
  Place& place = places_[size_t(member)];
  cpu_set_t others;
  CPU_ZERO(&others);
  for (const Place& other : places_) {
    const int core = other.core.load(std::memory_order_relaxed);
    if (&other != &place && core >= 0) CPU_SET(size_t(core), &others);
  }
  if (place.confined || !CPU_ISSET(static_cast<size_t>(sched_getcpu()), &others)) return;
  if (sched_getaffinity(0, sizeof place.allowed, &place.allowed) != 0) return;
  cpu_set_t free;
  CPU_AND(&free, &place.allowed, &others);
  CPU_XOR(&free, &free, &place.allowed);  // allowed, and nobody else's
  place.confined = CPU_COUNT(&free) > 0 && sched_setaffinity(0, sizeof free, &free) == 0;
}

}  // namespace splitformer
