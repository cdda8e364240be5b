package config

import (
	"fmt"
	"strconv"
	"strings"
)

// parseCountry reads country:IS. is: that was meant.
func parseCountry(entry string) (code, problem string, is bool) {
	word, code, _ := cutAny(entry, ":=")
	word, code = strings.ToLower(word), strings.ToUpper(code)
	switch {
	case isLetters(entry) && len(entry) == 2 && word != "as":
		return "", "a country is written country:" + strings.ToUpper(entry), true
	case word != "country" && (code == "" || Suggest(word, []string{"COUNTRY"}) == "" && word != "geo" && word != "geoip" && word != "cc"):
		return "", "", false
	case len(code) != 2 || !isLetters(code):
		return "", "a country is two letters of ISO 3166-1, one country a line, such as country:IS", true
	case code == "UK": // kept free for it, but not its code
		return "", "did you mean country:GB?", true
	case code == "EL": // the European Union's way
		return "", "did you mean country:GR?", true
	case !strings.EqualFold(entry, "country:"+code):
		return "", "did you mean country:" + code + "?", true
	}
	return code, "", true
}

// parseSystem reads AS64496. is: that was meant.
func parseSystem(entry string) (number uint32, problem string, is bool) {
	digits := strings.TrimLeft(entry, "aAsSnN")
	word := strings.ToLower(entry[:len(entry)-len(digits)])
	if word != "as" && word != "asn" {
		return 0, "", false
	}
	plain := strings.TrimLeft(digits, "-:=_.")
	if high, low, ok := strings.Cut(plain, "."); ok && isDigits(high) && isDigits(low) { // RFC 5396, asdot
		h, errH := strconv.ParseUint(high, 10, 16)
		l, errL := strconv.ParseUint(low, 10, 16)
		if errH != nil || errL != nil {
			return 0, noSystem, true
		}
		return 0, fmt.Sprintf("a system is one number; did you mean AS%d?", h<<16|l), true
	}
	if !isDigits(plain) {
		if plain == "" || !strings.ContainsAny(digits[:1], "0123456789") {
			return 0, noSystem, plain == ""
		}
		return 0, noSystem, !strings.Contains(plain, ".") // else a name: as64496.example.net
	}
	n, err := strconv.ParseUint(plain, 10, 32)
	switch {
	case err != nil || n == 0: // 0 is nobody's, RFC 7607
		return 0, noSystem, true
	case word != "as" || plain != digits || plain[0] == '0':
		return 0, fmt.Sprintf("did you mean AS%d?", n), true
	}
	return uint32(n), "", true
}

const noSystem = "an autonomous system is AS and a number from 1 to 4294967295, such as AS64496"

// parseName reads a DNS name. is: that was meant, and no address.
func parseName(entry string) (name, problem string, is bool) {
	if scheme, rest, ok := strings.Cut(entry, "://"); ok && isLetters(scheme) {
		host, _, _ := cutAny(rest, "/:?")
		if isName(host) {
			return "", "addresses of pages are not read; did you mean " + brief(host) + "?", true
		}
		return "", "", false
	}
	bare, _, sep := cutAny(entry, "/:,")
	bare = strings.TrimSuffix(bare, ".")
	if !isName(bare) {
		problem = whyNoName(bare)
		return "", problem, problem != "" && sep != ':' // fe80:1
	}
	switch sep {
	case '/':
		return "", "a name has no prefix length; did you mean " + brief(bare) + "?", true
	case ':':
		return "", "ports cannot be ignored; did you mean " + brief(bare) + "?", true
	case ',':
		return "", "one entry a line; did you mean " + brief(bare) + "?", true
	}
	return strings.ToLower(bare), "", true
}

// isName reports whether s can be a host's DNS name, written in full: labels as in
// RFC 1123 section 2.1, and the underscore that people use. Its last label is none
// that a slip makes of an address (10.0.0.x, 192.0.2.l0).
func isName(s string) bool {
	labels := strings.Split(s, ".")
	last := labels[len(labels)-1]
	if len(s) > 253 || len(labels) < 2 || len(last) < 2 || !isLetters(last[:1]) {
		return false
	}
	numbers := 0
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.ContainsFunc(l, isNoName) {
			return false
		}
		if isDigits(l) {
			numbers++
		}
	}
	return numbers < 2 || numbers < len(labels)-1
}

// whyNoName says what is wrong with what somebody may have written for a name, ""
// for what looks like something else.
func whyNoName(s string) string {
	under := strings.ReplaceAll(s, "_", ".")
	switch {
	case strings.HasPrefix(s, "*.") && isName(s[2:]):
		return "stars are not read: a name is asked for its addresses; did you mean " + brief(s[2:]) + "?"
	case s == "" || strings.Trim(s, "0123456789.*-") == "":
		return ""
	case strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }):
		return "a name is written in the form xn--, as the DNS has it"
	case strings.ContainsFunc(s, isNoName):
		return ""
	case strings.Contains(s, "."):
		at := strings.LastIndexByte(s, '.')
		if last := s[at+1:]; len(last) < 2 || !isLetters(last[:1]) || strings.Trim(s[:at], "0123456789.") == "" {
			return ""
		}
		return "no name: up to 63 letters, digits and - between dots, 253 in all"
	case isName(under):
		return "a name needs a dot; did you mean " + brief(under) + "?"
	}
	return "a name is written in full, with a dot, such as " + brief(strings.ToLower(s)) + ".example.net"
}

func isNoName(r rune) bool {
	return r >= 0x80 || !isWord(byte(r)) && r != '.' && r != '-'
}

func isLetters(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; c < 'a' || c > 'z' {
			return false
		}
	}
	return s != ""
}

// cutAny cuts s at the first of chars, and says which that was; 0: none.
func cutAny(s, chars string) (before, after string, sep byte) {
	i := strings.IndexAny(s, chars)
	if i < 0 {
		return s, "", 0
	}
	return s[:i], s[i+1:], s[i]
}
