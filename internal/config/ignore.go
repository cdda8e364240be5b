package config

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of one ignore file. Names are asked for again and again, so there are
// fewer of them.
const (
	maxIgnored      = 65536
	maxIgnoredNames = 256
)

// Ignore is whom an ignore file names. All lists are in the order of the file.
type Ignore struct {
	Prefixes  []netip.Prefix  // host bits masked, IPv4-mapped addresses as IPv4
	Names     []Entry[string] // DNS names, in small letters and without the final dot
	Countries []Entry[string] // two capitals, ISO 3166-1
	Systems   []Entry[uint32] // numbers of autonomous systems, RFC 6793
}

// Entry is an entry with its line.
type Entry[T any] struct {
	Value T
	Line  int
}

// LoadIgnore reads an ignore file. Beside the error of ParseIgnore there may
// be one of the file system.
func LoadIgnore(path string) (Ignore, error) {
	data, err := readBounded(path)
	if err != nil {
		return Ignore{}, fmt.Errorf("cannot read the ignore file: %w", err)
	}
	return ParseIgnore(path, data)
}

// ParseIgnore reads the text of an ignore file: an address, a network, a DNS
// name, a country or an autonomous system a line. The error is a *Mistakes; the
// entries of the good lines are returned beside it, so that a slip in one line
// exposes nobody on another.
func ParseIgnore(name string, data []byte) (Ignore, error) {
	rep := &report{file: name}
	var all Ignore
	if len(data) > maxFile {
		data = data[:strings.LastIndexByte(string(data[:maxFile]), '\n')+1]
		rep.add(0, "", "more than %d bytes; what is above was not read", maxFile)
	}
	left, leftNames := 0, 0
	for n, line := range lines(data) {
		if !legible(n, line, rep) {
			continue
		}
		line, _, _ = strings.Cut(line, "#")
		entry, more, _ := strings.Cut(strings.Trim(strings.ReplaceAll(line, "\t", " "), " "), " ")
		if entry == "" {
			continue
		}
		one, problem := parseEntry(entry, n)
		switch {
		case problem != "":
			rep.add(n, "", "%s: %s", quoted(entry), problem)
			continue
		case all.Count() == maxIgnored:
			if left++; left == 1 {
				rep.add(n, "", "more than %d entries; this one and what comes after it is left out", maxIgnored)
			}
			continue
		case len(one.Names) > 0 && len(all.Names) == maxIgnoredNames:
			if leftNames++; leftNames == 1 {
				rep.add(n, "", "more than %d DNS names; this one and those after it are left out", maxIgnoredNames)
			}
			continue
		}
		all.Add(one)
		if more != "" {
			rep.add(n, "", "%s after %s was not read; one entry a line, put # before a comment", quoted(more), brief(entry))
		}
	}
	return all, rep.err()
}

// Add adds what another file names.
func (i *Ignore) Add(more Ignore) {
	i.Prefixes = append(i.Prefixes, more.Prefixes...)
	i.Names = append(i.Names, more.Names...)
	i.Countries = append(i.Countries, more.Countries...)
	i.Systems = append(i.Systems, more.Systems...)
}

// Line is the first line of an entry that is no network, as people write it: a name,
// country:IS, AS64496. 0: there is none.
func (i *Ignore) Line(entry string) int {
	for _, e := range i.Names {
		if e.Value == entry {
			return e.Line
		}
	}
	for _, e := range i.Countries {
		if "country:"+e.Value == entry {
			return e.Line
		}
	}
	for _, e := range i.Systems {
		if fmt.Sprintf("AS%d", e.Value) == entry {
			return e.Line
		}
	}
	return 0
}

// Count is how many entries there are.
func (i *Ignore) Count() int {
	return len(i.Prefixes) + len(i.Names) + len(i.Countries) + len(i.Systems)
}

// parseEntry reads what stands on one line.
func parseEntry(entry string, line int) (one Ignore, problem string) {
	host, _, _ := strings.Cut(entry, "/")
	if _, err := netip.ParseAddr(host); err == nil {
		p, problem := parseNetwork(entry)
		one.Prefixes = []netip.Prefix{p}
		return one, problem
	}
	if country, problem, is := parseCountry(entry); is {
		one.Countries = []Entry[string]{{country, line}}
		return one, problem
	}
	if system, problem, is := parseSystem(entry); is {
		one.Systems = []Entry[uint32]{{system, line}}
		return one, problem
	}
	if name, problem, is := parseName(entry); is {
		one.Names = []Entry[string]{{name, line}}
		return one, problem
	}
	_, problem = parseNetwork(entry) // which says what is wrong with it
	return one, problem
}

// parseNetwork reads an address, or one with a prefix length or, IPv4 only, a
// dotted mask.
func parseNetwork(entry string) (netip.Prefix, string) {
	host, mask, masked := strings.Cut(entry, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}, strangeAddr(host, mask)
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, "interfaces cannot be named here; did you mean " + addr.WithZone("").String() + "?"
	}
	length := addr.BitLen()
	if masked {
		var problem string
		if length, problem = parseMask(addr, mask); problem != "" {
			return netip.Prefix{}, problem
		}
	}
	if addr.Is4In6() {
		addr, length = addr.Unmap(), length-96
		if length < 0 {
			return netip.Prefix{}, fmt.Sprintf("an IPv4 address in IPv6 form has a prefix length from 96 to 128; did you mean %s/%s?", addr, brief(mask))
		}
	}
	return netip.PrefixFrom(addr, length).Masked(), ""
}

// parseMask gives the prefix length that mask stands for.
func parseMask(addr netip.Addr, mask string) (int, string) {
	most := addr.BitLen()
	if isDigits(mask) {
		n, err := strconv.Atoi(mask)
		if err != nil || n > most {
			return 0, fmt.Sprintf("the prefix length must be from 0 to %d", most)
		}
		return n, ""
	}
	dotted, err := netip.ParseAddr(mask)
	if err != nil || !dotted.Is4() || !addr.Is4() {
		return 0, fmt.Sprintf("%s is no prefix length (0 to %d)", brief(mask), most)
	}
	b := dotted.As4()
	m := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	ones := bits.LeadingZeros32(^m)
	if m<<ones == 0 {
		return ones, ""
	}
	if zeros := bits.LeadingZeros32(m); ^m<<zeros == 0 {
		return 0, fmt.Sprintf("%s is the mask upside down; did you mean %s/%d?", mask, addr, zeros)
	}
	return 0, mask + " has a gap; a mask is ones and then zeros"
}

// strangeAddr says what is wrong with a host that is no address, and what was
// probably meant.
func strangeAddr(host, mask string) string {
	suffix := ""
	if mask != "" {
		suffix = "/" + brief(mask)
	}
	if bare, ok := strings.CutPrefix(host, "["); ok {
		bare, _, _ = strings.Cut(bare, "]")
		if a, err := netip.ParseAddr(bare); err == nil {
			return "no brackets here; did you mean " + a.WithZone("").String() + suffix + "?"
		}
	}
	if ap, err := netip.ParseAddrPort(host); err == nil {
		return "ports cannot be ignored; did you mean " + ap.Addr().WithZone("").String() + suffix + "?"
	}
	if a, b, ok := strings.Cut(host, "-"); ok {
		_, errA := netip.ParseAddr(a)
		if errA == nil && (isDigits(b) || strings.Contains(b, ".") || strings.Contains(b, ":")) {
			return "ranges are not read; write networks, such as 10.0.0.0/24"
		}
	}
	if strings.Trim(host, "0123456789.*") == "" {
		return strangeIPv4(host, suffix)
	}
	if strings.Contains(host, ":") {
		return "no IPv6 address"
	}
	return "no address; write one like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
}

// strangeIPv4 is for digits, dots and stars. 1.x and 2.x read short forms
// and leading zeros as inet_aton(3) does: the last number fills what is
// left, and a leading zero makes a number octal.
func strangeIPv4(host, suffix string) string {
	const strange = "no address; an IPv4 address is four numbers from 0 to 255"
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) < 2 {
		return strange
	}
	wild, octal := len(parts), false
	for i, p := range parts {
		if p == "*" {
			wild = min(wild, i)
			continue
		}
		if n, err := strconv.Atoi(p); err != nil || n > 255 || wild < i || i > 3 {
			return strange
		} else if len(p) > 1 && p[0] == '0' {
			parts[i], octal = strconv.Itoa(n), true
		}
	}
	plain := strings.Join(parts, ".")
	switch {
	case wild < len(parts):
		zeros := strings.Repeat(".0", 4-wild)
		return fmt.Sprintf("stars are not read; did you mean %s/%d?", strings.TrimPrefix(strings.Join(parts[:wild], ".")+zeros, "."), 8*wild)
	case len(parts) < 4:
		network := plain + strings.Repeat(".0", 4-len(parts))
		if suffix != "" {
			return "an IPv4 address has four numbers; did you mean " + network + suffix + "?"
		}
		last := len(parts) - 1
		old := strings.Join(parts[:last], ".") + strings.Repeat(".0", 4-len(parts)) + "." + parts[last]
		return fmt.Sprintf("an IPv4 address has four numbers; did you mean %s/%d? (PortSentry 1.x and 2.x read %s)", network, 8*len(parts), old)
	case octal:
		return "leading zeros make a number octal for some programs; did you mean " + plain + suffix + "?"
	}
	return "no address; did you mean " + plain + suffix + "?"
}
