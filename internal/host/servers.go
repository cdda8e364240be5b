package host

import (
	"net/netip"
	"slices"
	"strings"
)

const blank = " \t"

// Where name servers are written. The second list counts only where the first
// leads to a resolver on this machine: it has the servers that one asks.
var (
	resolvConf = []source{{"/etc/resolv.conf", keyed(blank, "nameserver")}}

	behindStub = []source{
		{"/run/systemd/resolve/resolv.conf", keyed(blank, "nameserver")},
		{"/run/systemd/resolve/netif/*", keyed("=", "servers")},
		{"/etc/systemd/resolved.conf", keyed("=", "dns", "fallbackdns")},
		{"/etc/systemd/resolved.conf.d/*.conf", keyed("=", "dns", "fallbackdns")},
		{"/run/NetworkManager/no-stub-resolv.conf", keyed(blank, "nameserver")},
		{"/run/NetworkManager/resolv.conf", keyed(blank, "nameserver")},
		{"/run/dnsmasq/resolv.conf", keyed(blank, "nameserver")},
		{"/run/resolvconf/resolv.conf", keyed(blank, "nameserver")},
		{"/run/resolvconf/interface/*", keyed(blank, "nameserver")},
		{"/run/connman/resolv.conf", keyed(blank, "nameserver")},
		{"/etc/resolvconf/resolv.conf.d/*", keyed(blank, "nameserver")},
		{"/etc/dnsmasq.conf", dnsmasq},
		{"/etc/dnsmasq.d/*", dnsmasq},
		{"/etc/unbound/unbound.conf", keyed(":", "forward-addr")},
		{"/etc/unbound/unbound.conf.d/*.conf", keyed(":", "forward-addr")},
	}

	timeServers = []source{
		{"/etc/systemd/timesyncd.conf", keyed("=", "ntp", "fallbackntp")},
		{"/etc/systemd/timesyncd.conf.d/*.conf", keyed("=", "ntp", "fallbackntp")},
		{"/run/systemd/netif/leases/*", keyed("=", "ntp", "server_address")},
		{"/var/lib/NetworkManager/internal-*.lease", keyed("=", "ntp", "server_address")},
		{"/var/lib/NetworkManager/dhclient-*.lease", dhclient},
		{"/var/lib/dhcp/dhclient*.leases", dhclient},
		{"/var/lib/dhclient/*.lease*", dhclient},
		{"/etc/chrony/chrony.conf", keyed(blank, "server", "pool", "peer")},
		{"/etc/chrony/conf.d/*.conf", keyed(blank, "server", "pool", "peer")},
		{"/etc/chrony/sources.d/*.sources", keyed(blank, "server", "pool", "peer")},
		{"/etc/chrony.conf", keyed(blank, "server", "pool", "peer")},
		{"/etc/chrony.d/*.conf", keyed(blank, "server", "pool", "peer")},
		{"/run/chrony-dhcp/*.sources", keyed(blank, "server", "pool", "peer")},
		{"/etc/ntp.conf", keyed(blank, "server", "pool", "peer")},
		{"/etc/ntpsec/ntp.conf", keyed(blank, "server", "pool", "peer")},
		{"/run/ntp.conf.dhcp", keyed(blank, "server", "pool", "peer")},
		{"/run/ntpsec/ntp.conf.dhcp", keyed(blank, "server", "pool", "peer")},
		{"/etc/ntpd.conf", keyed(blank, "server", "servers")},
		{"/etc/openntpd/ntpd.conf", keyed(blank, "server", "servers")},
	}
)

// resolvers lists the name servers in use. own says what leads to a local stub.
func (f fileSystem) resolvers(own func(netip.Addr) bool) []netip.Addr {
	l := f.addresses(resolvConf)
	// Without any the C library asks 127.0.0.1 (resolv.conf(5)).
	if len(l) == 0 || slices.ContainsFunc(l, own) {
		l = append(l, f.addresses(behindStub)...)
	}
	return sorted(l)
}

// dnsmasq reads server=192.0.2.1#53, server=/example.org/192.0.2.1@eth0 and
// rev-server=198.51.100.0/24,192.0.2.1.
func dnsmasq(text string, add func(string)) {
	words(text, "=", func(key string, values []string) {
		if (key != "server" && key != "rev-server") || len(values) == 0 {
			return
		}
		v := values[len(values)-1]
		add(v[strings.LastIndexByte(v, '/')+1:])
	})
}

// dhclient reads dhclient.leases(5): leases are appended, the last one of each
// interface holds.
func dhclient(text string, add func(string)) {
	last := make(map[string][]string)
	var lease []string
	var ifname string
	words(text, blank, func(key string, values []string) {
		switch {
		case key == "lease" || key == "lease6":
			lease, ifname = nil, ""
		case key == "interface" && len(values) == 1:
			ifname = values[0]
		case key == "option" && len(values) > 1 && (values[0] == "dhcp-server-identifier" || values[0] == "ntp-servers"):
			lease = append(lease, values[1:]...)
		case key == "}":
			last[ifname] = lease
		}
	})
	for _, l := range last {
		for _, word := range l {
			add(word)
		}
	}
}
