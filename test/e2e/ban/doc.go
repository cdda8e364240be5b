// Package ban proves with the real program, the real firewall and a real nmap
// who is cut off, who never is, and how a ban is undone. Its tests work in
// network namespaces of their own. With PORTSENTRY_LONG set, floods last longer.
package ban
