// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* No program: the object the loader makes the maps of load balancing per packet from. */
#include "lb_maps.h"
