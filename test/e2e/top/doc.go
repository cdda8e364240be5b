// Package top tries `portsentry top` on a terminal, with a real daemon and a scan.
package top
