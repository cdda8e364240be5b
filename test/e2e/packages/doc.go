// Package packages tries what `make packages` makes: what is in the packages,
// that they are the same when made again, and that the deb takes the place of
// Debian's PortSentry 1.2 on a small Debian of its own, bans and lets in again,
// is upgraded, removed and purged there; that deb and rpm live with a real systemd,
// their units as they are; that the arm64 program says what that of amd64 says. Run
// by make test-long.
package packages
