package app

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// network finds the IP header of an Ethernet frame with up to two tags.
func network(b []byte) (etherType uint16, ip []byte) {
	for tags, at := 0, 12; at+2 <= len(b); tags, at = tags+1, at+4 {
		etherType = binary.BigEndian.Uint16(b[at:])
		if tags == 2 || etherType != 0x8100 && etherType != 0x88a8 && etherType != 0x9100 {
			return etherType, b[at+2:]
		}
	}
	return 0, nil
}

// ours reports whether a frame is what the program reads: IP right behind the
// Ethernet header and tags.
func ours(b []byte) bool {
	etherType, _ := network(b)
	return etherType == 0x0800 || etherType == 0x86dd
}

// shape tells a fragment, or what has a fragment header, and counts the
// extension headers of IPv6.
func shape(b []byte) (fragment bool, headers int) {
	etherType, ip := network(b)
	if etherType == 0x0800 {
		return len(ip) >= 8 && binary.BigEndian.Uint16(ip[6:])&0x3fff != 0, 0
	}
	if etherType != 0x86dd || len(ip) < 40 {
		return false, 0
	}
	for next, at := ip[6], 40; ; headers++ {
		switch next {
		case 44:
			return true, headers
		case 0, 43, 51, 60, 135, 139, 140:
		default:
			return false, headers
		}
		if at+8 > len(ip) {
			return false, headers + 1
		}
		size := (int(ip[at+1]) + 1) * 8
		if next == 51 {
			size = (int(ip[at+1]) + 2) * 4
		}
		next, at = ip[at], at+size
	}
}

// seeds are the packets of decode's tests and what its fuzzers found.
func seeds(t testing.TB) (all [][]byte) {
	t.Helper()
	f, err := os.Open("../decode/testdata/frames.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		b, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	found, err := filepath.Glob("../decode/testdata/fuzz/FuzzDecode/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(b), "[]byte(")
		line, _, _ = strings.Cut(line, ")\n")
		data, err := strconv.Unquote(line)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, []byte(data))
	}
	return slices.DeleteFunc(all, func(b []byte) bool { return len(b) < 14 })
}

// mutate changes bytes of a frame, cuts it or lengthens it. Most IPv4 headers
// get a right checksum again: what is wrong there hides everything else.
func mutate(rng *rand.Rand, seed []byte) []byte {
	b := slices.Clone(seed)
	for range rng.IntN(4) {
		at := 12 + rng.IntN(min(len(b)-12, 90))
		switch rng.IntN(3) {
		case 0:
			b[at] = byte(rng.Uint32())
		case 1:
			b[at] ^= 1 << rng.IntN(8)
		default:
			b[at] = []byte{0, 1, 5, 6, 8, 17, 20, 40, 43, 44, 50, 51, 58, 59, 60, 135, 255}[rng.IntN(17)]
		}
	}
	switch rng.IntN(6) {
	case 0:
		b = b[:14+rng.IntN(len(b)-13)]
	case 1:
		b = append(b, make([]byte, rng.IntN(40))...)
	}
	etherType, ip := network(b)
	if etherType == 0x0800 && len(ip) >= 20 && rng.IntN(8) > 0 {
		if header := ip[:min(len(ip), int(ip[0]&15)*4)]; len(header) >= 20 {
			header[10], header[11] = 0, 0
			binary.BigEndian.PutUint16(header[10:], ^sum(header, 0))
		}
	}
	if at, field := checksum(b); at > 0 && rng.IntN(4) > 0 {
		binary.BigEndian.PutUint16(b[at:], field[rng.IntN(2)])
	}
	return b
}

// sum is the ones' complement sum of RFC 1071.
func sum(b []byte, acc uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		acc += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		acc += uint32(b[0]) << 8
	}
	acc = acc>>16 + acc&0xffff
	return uint16(acc>>16 + acc)
}

// checksum finds the checksum of a TCP segment or a UDP datagram right behind the
// IP header, and what it should be: the right one, and what stands there before a
// card has computed it. 0: there is none.
func checksum(b []byte) (at int, field [2]uint16) {
	etherType, ip := network(b)
	var proto byte
	var addrs, segment []byte
	switch {
	case etherType == 0x0800 && len(ip) >= 20:
		header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if header < 20 || total < header || total > len(ip) {
			return 0, field
		}
		proto, addrs, segment = ip[9], ip[12:20], ip[header:total]
	case etherType == 0x86dd && len(ip) >= 40:
		total := 40 + int(binary.BigEndian.Uint16(ip[4:]))
		if total > len(ip) {
			return 0, field
		}
		proto, addrs, segment = ip[6], ip[8:40], ip[40:total]
	}
	switch {
	case proto == 6 && len(segment) >= 20:
		at = 16
	case proto == 17 && len(segment) >= 8:
		at = 6
		if n := int(binary.BigEndian.Uint16(segment[4:])); n >= 8 && n <= len(segment) {
			segment = segment[:n]
		}
	default:
		return 0, field
	}
	field[1] = sum(addrs, uint32(proto)+uint32(len(segment)))
	segment = slices.Clone(segment)
	segment[at], segment[at+1] = 0, 0
	field[0] = ^sum(segment, uint32(field[1]))
	header := 40
	if etherType == 0x0800 {
		header = int(ip[0]&15) * 4
	}
	return len(b) - len(ip) + header + at, field
}

// leftToCard reports whether the sum of the pseudo-header stands where the
// checksum should.
func leftToCard(b []byte) bool {
	at, field := checksum(b)
	return at > 0 && binary.BigEndian.Uint16(b[at:]) == field[1]
}
