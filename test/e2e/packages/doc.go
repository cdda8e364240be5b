// Package packages tries what `make packages` makes: what is in the packages,
// that they are the same when made again, and that the deb takes the place of
// Debian's PortSentry 1.2 on a small Debian of its own, bans and lets in again,
// is upgraded, removed and purged there. Run by make test-long.
package packages
