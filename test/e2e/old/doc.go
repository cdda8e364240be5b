// Package old runs Debian's PortSentry 1.2 and ours side by side: the same
// configuration and the same scans go into both, each on a machine of its own,
// and what each says and does has to be the same, but for the differences that
// docs/improvements.md lists.
package old
