// Package tools proves the signatures of internal/detect/tools on what the real nmap,
// masscan, ZMap and hping send, and on what the kernel sends for ordinary programs.
package tools
