// Package privileges tries the daemon with the privileges that
// packaging/systemd/portsentry.service gives it, and no others: the units in, what
// the kernel says about the processes out.
package privileges
