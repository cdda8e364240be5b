// Package defects puts PortSentry where 1.2 and 2.0.7 went wrong, with the whole
// program on a machine of its own: what their sources or a run of them showed.
// docs/improvements.md says which test is about which defect.
package defects
