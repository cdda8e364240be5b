package host

import "strings"

// hostName gives said without its final dot if it is a host name (RFC 1123,
// section 2.1, and the underscore that people use), else "". A name that a
// person or a program could take for an address is none either: one whose last
// label is a number, which inet_aton(3) reads as an address or a part of one,
// and one with four numbers joined by dots anywhere, which is what programs
// that read logs look for. That costs the names of providers who write the
// address into them; they say little else.
func hostName(said string) string {
	name := strings.TrimSuffix(said, ".")
	if len(name) > 253 || holdsQuad(name) {
		return ""
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return ""
		}
		last = label
	}
	if isNumber(last) {
		return ""
	}
	return name
}

// isLabel reports whether s may stand between the dots of a host name.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', isDigit(c), c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// isNumber reports whether inet_aton(3) reads s as a number: decimal, octal or
// hexadecimal.
func isNumber(s string) bool {
	digits := "0123456789"
	if hex, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		s, digits = hex, "0123456789abcdefABCDEF"
	}
	return strings.Trim(s, digits) == ""
}

// holdsQuad reports whether four numbers joined by dots stand anywhere in s.
func holdsQuad(s string) bool {
	digit, dots := false, 0 // of the run of numbers that ends here
	for i := range len(s) {
		switch c := s[i]; {
		case isDigit(c) && dots == 3:
			return true
		case isDigit(c):
			digit = true
		case c == '.' && digit:
			digit, dots = false, dots+1
		default:
			digit, dots = false, 0
		}
	}
	return false
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
