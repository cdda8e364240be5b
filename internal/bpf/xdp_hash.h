//go:build ignore

// SPDX-License-Identifier: BSD-2-Clause
// How the tables of this host, and the rings, know an address.
#pragma once
#include "xdp_maps.h"

once_ __u32 hash_of(const struct addr *a)
{
	return !a ? 0 : siphash(config.hash[0], config.hash[1], a->d, 2);
}
