package host

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
)

func parseAll(words ...string) []netip.Addr {
	var l []netip.Addr
	for _, w := range words {
		l = append(l, addr(w))
	}
	return sorted(l)
}

func TestResolvers(t *testing.T) {
	const uplink = "nameserver 192.0.2.1\nnameserver 2001:db8::1\n"
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"plain", map[string]string{
			"etc/resolv.conf":                 "# nameserver 192.0.2.9\n; nameserver 192.0.2.9\nsearch example.org\nnameserver\t192.0.2.1 # first\n nameserver fe80::1%eth0\nnameserver ns.example.org\nnameserver 224.0.0.1\noptions edns0",
			"run/systemd/resolve/resolv.conf": "nameserver 192.0.2.99\n"},
			[]string{"192.0.2.1", "fe80::1"}},
		{"systemd-resolved", map[string]string{
			"etc/resolv.conf":                    "nameserver 127.0.0.53\r\n",
			"run/systemd/resolve/resolv.conf":    uplink,
			"run/systemd/resolve/netif/2":        "SERVERS=192.0.2.2 192.0.2.3\n",
			"etc/systemd/resolved.conf.d/a.conf": "[Resolve]\n#DNS=192.0.2.9\nDNS=192.0.2.4:853#dns.example [2001:db8::4]:853%eth0#dns.example\n"},
			[]string{"127.0.0.53", "192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::4"}},
		{"stub on an address of ours", map[string]string{
			"etc/resolv.conf":                        "nameserver 10.0.0.1\n",
			"run/NetworkManager/no-stub-resolv.conf": uplink},
			[]string{"10.0.0.1", "192.0.2.1", "2001:db8::1"}},
		{"dnsmasq", map[string]string{
			"etc/resolv.conf":    "nameserver ::1\n",
			"etc/dnsmasq.conf":   "#server=192.0.2.9\nserver=192.0.2.1#5353\nserver=/example.org/192.0.2.2@eth0\nserver=/local/\nno-resolv\n",
			"etc/dnsmasq.d/more": "rev-server=198.51.100.0/24,192.0.2.3\n"},
			[]string{"::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"}},
		{"unbound", map[string]string{
			"etc/resolv.conf":                   "nameserver 127.0.0.1\n",
			"etc/unbound/unbound.conf.d/f.conf": "forward-zone:\n  name: \".\"\n  forward-addr: 192.0.2.1@853#dns.example\n\tforward-addr: 2001:db8::1\n"},
			[]string{"127.0.0.1", "192.0.2.1", "2001:db8::1"}},
		{"no resolv.conf means 127.0.0.1", map[string]string{"run/dnsmasq/resolv.conf": uplink}, []string{"192.0.2.1", "2001:db8::1"}},
		{"nothing at all", nil, nil},
	}
	own := func(a netip.Addr) bool { return a.IsLoopback() || a == addr("10.0.0.1") }
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				writeFile(t, root, name, text)
			}
			if got := (fileSystem{root}).resolvers(own); !slices.Equal(got, parseAll(tt.want...)) {
				t.Errorf("resolvers %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTimeServers(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"etc/systemd/timesyncd.conf":        "[Time]\nNTP=192.0.2.1 ntp.example.org 2001:db8::1\n#FallbackNTP=192.0.2.99\n",
		"run/systemd/netif/leases/2":        "ADDRESS=192.0.2.50\nROUTER=192.0.2.51\nSERVER_ADDRESS=192.0.2.2\nNTP=192.0.2.3 192.0.2.4\n",
		"etc/chrony/chrony.conf":            "pool 2.pool.ntp.org iburst\nserver 192.0.2.5 iburst\n! server 192.0.2.99\n",
		"run/chrony-dhcp/eth0.sources":      "server 192.0.2.6 iburst\n",
		"etc/ntp.conf":                      "restrict 192.0.2.98\nserver 127.127.1.0\npeer 192.0.2.7\n",
		"var/lib/dhcp/dhclient.eth0.leases": "lease {\n  interface \"eth0\";\n  option dhcp-server-identifier 192.0.2.97;\n}\nlease {\n  interface \"eth0\";\n  option routers 192.0.2.96;\n  option dhcp-server-identifier 192.0.2.8;\n  option ntp-servers 192.0.2.9,192.0.2.10;\n}\n",
	} {
		writeFile(t, root, name, text)
	}
	want := parseAll("192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "127.127.1.0",
		"192.0.2.7", "192.0.2.8", "192.0.2.9", "192.0.2.10")
	if got := sorted((fileSystem{root}).addresses(timeServers)); !slices.Equal(got, want) {
		t.Errorf("time servers\n%v, want\n%v", got, want)
	}
}

func utmpRecord(kind int16, pid int32, host string, address netip.Addr) []byte {
	b := make([]byte, 384)
	binary.NativeEndian.PutUint16(b, uint16(kind))
	binary.NativeEndian.PutUint32(b[4:], uint32(pid))
	copy(b[76:], host)
	if address.IsValid() {
		copy(b[348:], address.AsSlice())
	}
	return b
}

func TestParseUtmp(t *testing.T) {
	file := slices.Concat(
		utmpRecord(2, 1, "6.18.0", netip.Addr{}),                    // boot
		utmpRecord(7, 100, "client.example.org", addr("192.0.2.1")), // ssh
		utmpRecord(7, 101, "", addr("2001:db8::1")),                 // ssh, IPv6
		utmpRecord(7, 102, "", addr("::ffff:192.0.2.2")),            // mapped
		utmpRecord(7, 103, "192.0.2.3", netip.Addr{}),               // address in words only
		utmpRecord(7, 104, ":0", netip.Addr{}),                      // local
		utmpRecord(8, 105, "192.0.2.4", addr("192.0.2.4")),          // ended
		utmpRecord(7, 0, "192.0.2.5", addr("192.0.2.5")),            // nobody's
		utmpRecord(7, 106, "192.0.2.6", addr("192.0.2.6"))[:383],    // torn
	)
	var got []string
	for _, e := range parseUtmp(file, "amd64") {
		got = append(got, strconv.Itoa(int(e.pid))+" "+e.addr.String())
	}
	want := []string{"100 192.0.2.1", "101 2001:db8::1", "102 192.0.2.2", "103 192.0.2.3"}
	if !slices.Equal(got, want) {
		t.Errorf("entries %q, want %q", got, want)
	}

	wide := make([]byte, 800)
	for i, a := range []string{"192.0.2.1", "192.0.2.2"} {
		r := wide[i*400:]
		binary.NativeEndian.PutUint16(r, 7)
		binary.NativeEndian.PutUint32(r[4:], 100)
		copy(r[360:], addr(a).AsSlice())
	}
	if l := parseUtmp(wide, "arm64"); len(l) != 2 || l[1].addr != addr("192.0.2.2") {
		t.Errorf("arm64: %v", l)
	}
}

func TestLogins(t *testing.T) {
	root := t.TempDir()
	self := int32(os.Getpid())
	writeFile(t, root, "run/utmp", string(slices.Concat(
		utmpRecord(7, self, "", addr("192.0.2.1")),
		utmpRecord(7, 1<<22+1, "", addr("192.0.2.9")), // no such process
		utmpRecord(7, self, "", addr("127.0.0.1")))))
	writeFile(t, root, "run/systemd/sessions/4", "UID=0\nREMOTE=1\nREMOTE_HOST=2001:db8::2\n")
	writeFile(t, root, "run/systemd/sessions/5", "REMOTE=1\nREMOTE_HOST=client.example.org\n")
	if got, want := (fileSystem{root}).logins(), parseAll("192.0.2.1", "2001:db8::2"); !slices.Equal(got, want) {
		t.Errorf("logins %v, want %v", got, want)
	}

	// We, started by sudo, started by a shell with the variable, started by sshd.
	pid := strconv.Itoa(os.Getpid())
	writeFile(t, root, "proc/"+pid+"/environ", "PATH=/bin\x00SUDO_USER=adm\x00")
	writeFile(t, root, "proc/"+pid+"/stat", pid+" (port) sen) S 900 1 1 0")
	writeFile(t, root, "proc/900/stat", "900 (sudo) S 901 1 1 0")
	writeFile(t, root, "proc/901/environ", "HOME=/root\x00SSH_CONNECTION=192.0.2.7 50000 192.0.2.100 22\x00SSH_CLIENT=192.0.2.7 50000 22\x00XSSH_CLIENT=192.0.2.8 1 2\x00")
	writeFile(t, root, "proc/901/stat", "901 (bash) S 902 1 1 0")
	writeFile(t, root, "proc/902/environ", "SSH_CLIENT=fe80::7%eth0 50000 22\x00")
	writeFile(t, root, "proc/902/stat", "902 (sshd) S 0 1 1 0")
	if got, want := (fileSystem{root}).ownLogin(), parseAll("192.0.2.7", "fe80::7"); !slices.Equal(got, want) {
		t.Errorf("own login %v, want %v", got, want)
	}
}

func FuzzParseUtmp(f *testing.F) {
	f.Add(utmpRecord(7, 100, "192.0.2.3", addr("192.0.2.1")), true)
	f.Add(utmpRecord(7, 100, "192.0.2.3", netip.Addr{}), false)
	f.Fuzz(func(t *testing.T, b []byte, wide bool) {
		arch := "amd64"
		if wide {
			arch = "arm64"
		}
		l := parseUtmp(b, arch)
		if len(l) > len(b)/384 {
			t.Errorf("%d entries in %d bytes", len(l), len(b))
		}
		for _, e := range l {
			if !e.addr.IsValid() || e.addr.IsUnspecified() || e.addr.IsMulticast() || e.addr.Is4In6() || e.pid <= 0 {
				t.Errorf("entry %v", e)
			}
		}
	})
}

func FuzzFiles(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nserver=/a/192.0.2.1#53\nlease {\n option ntp-servers 192.0.2.1, 192.0.2.2;\n}\n")
	f.Add("DNS=[2001:db8::1]:853%eth0#name\nSSH_CLIENT=192.0.2.7 1 2\x00")
	f.Fuzz(func(t *testing.T, text string) {
		for _, list := range [][]source{resolvConf, behindStub, timeServers} {
			for _, s := range list {
				s.parse(text, func(word string) {
					if a, ok := literal(word); ok && (!a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified()) {
						t.Errorf("%q gives %v", word, a)
					}
				})
			}
		}
		parseEnviron([]byte(text))
		parentOf([]byte(text))
		parsePassiveOpens([]byte(text))
	})
}
