// Package kinds has the real nmap scan a host, each way that it knows, captures what
// the host sees of it, and replays that to the whole program: who scanned, how, and
// nobody else. Next to the scans there is ordinary traffic, of which nothing may be
// said. With PORTSENTRY_LONG set there are slow scans too.
package kinds
