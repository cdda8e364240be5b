// Package xdp proves, from outside, what the XDP program does for the daemon: it
// sees, bans and counts below the network stack, goes on when nobody runs, and
// where it cannot be, something else does it. Its tests work in network
// namespaces of their own. With PORTSENTRY_LONG set, floods are larger.
package xdp
