"""What the Grafana dashboards show: titles, queries, units. `tools/dashboards.py` writes them."""

from tools.panels.decoder import DECODERS
from tools.panels.encoder import ENCODERS
from tools.panels.hand_off import HAND_OFF
from tools.panels.instances import INSTANCES
from tools.panels.overview import OVERVIEW

DASHBOARDS = (OVERVIEW, ENCODERS, DECODERS, HAND_OFF, INSTANCES)
