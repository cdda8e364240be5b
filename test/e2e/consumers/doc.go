// Package consumers runs the programs that live on what PortSentry writes, as
// Debian ships them and with what our documents say to install: fail2ban,
// logcheck, logwatch, rsyslog, an iptables rule with a set, and services that
// ask hosts.deny. Each runs on a machine of the test's own.
package consumers
