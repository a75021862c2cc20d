// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* No program: the object the loader makes the maps from, so that they carry type information. */
#include "maps.h"
