// Package state proves with the real program that what is known outlives it: bans a
// crash and a reboot, the past a damaged file and a disk that takes nothing. Its tests
// work in network namespaces of their own. With PORTSENTRY_LONG set, the program is
// killed at a hundred moments, and large numbers of bans are put back.
package state
