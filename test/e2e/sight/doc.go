// Package sight holds the end-to-end tests of what is seen and how it is named:
// the real nmap, ordinary sockets and hand-made packets go in, at one end of a
// wire between network namespaces; the lines, files and exit codes of the built
// program come out at the other. Nothing is ever banned here.
package sight
