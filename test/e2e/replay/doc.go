// Package replay plays captures to the whole program: what is found in them, what
// is said of those that are damaged, cut or none, and how fast it goes. The
// captures are made here, packet by packet.
package replay
