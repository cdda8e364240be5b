package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// readNumber stores a whole number from low to high.
func readNumber(v string, low, high int, hint string, to *int) []string {
	t := strings.Trim(v, blanks)
	n, err := strconv.ParseUint(t, 10, 32)
	if !isDigits(t) || err != nil || n < uint64(low) || n > uint64(high) {
		return []string{fmt.Sprintf("%s: must be a whole number from %d to %d%s", quoted(v), low, high, hint)}
	}
	*to = int(n)
	return nil
}

// showNumber is n, or "" where n stands for "not set".
func showNumber(n, unset int) string {
	if n == unset {
		return ""
	}
	return strconv.Itoa(n)
}

// readWord gives the one of words that v is, or what is wrong with it.
func readWord(v string, words []string) (string, []string) {
	t := strings.Trim(v, blanks)
	if slices.Contains(words, t) {
		return t, nil
	}
	last := len(words) - 1
	p := quoted(v) + ": must be " + strings.Join(words[:last], ", ") + " or " + words[last]
	if meant := Suggest(t, words); meant != "" {
		p += "; did you mean " + meant + "?"
	}
	return "", []string{p}
}

// parsePorts reads a list of ports and ranges: commas between, blanks round
// entries, empty entries passed over. It gives the set, or every problem.
func parsePorts(v string) (PortSet, []string) {
	var set PortSet
	var problems []string
	for entry := range strings.SplitSeq(v, ",") {
		if entry = strings.Trim(entry, blanks); entry == "" {
			continue
		}
		r, problem := parsePortRange(entry)
		if problem != "" {
			problems = append(problems, problem)
			continue
		}
		set = append(set, r)
	}
	if problems == nil && set == nil {
		problems = []string{"no port in it"}
	}
	return set.merged(), problems
}

func parsePortRange(entry string) (PortRange, string) {
	from, to, ranged := strings.Cut(entry, "-")
	if !ranged {
		to = from
	}
	switch {
	case ranged && from == "" && isDigits(to):
		return PortRange{}, brief(entry) + " has no start; did you mean " + brief(to) + " or 1-" + brief(to) + "?"
	case ranged && to == "" && isDigits(from):
		return PortRange{}, brief(entry) + " has no end; did you mean " + brief(from) + " or " + brief(from) + "-65535?"
	case !isDigits(from) || !isDigits(to):
		return PortRange{}, strangePort(entry)
	}
	first, ok := parsePort(from)
	if !ok {
		return PortRange{}, brief(from) + " is no port (1 to 65535)"
	}
	last, ok := parsePort(to)
	if !ok {
		return PortRange{}, brief(to) + " is no port (1 to 65535)"
	}
	if first > last {
		return PortRange{}, fmt.Sprintf("%s runs backwards; did you mean %d-%d?", brief(entry), last, first)
	}
	return PortRange{first, last}, ""
}

func parsePort(digits string) (uint16, bool) {
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), err == nil && n > 0
}

// strangePort says what is wrong with an entry that is neither a number nor
// two with a dash.
func strangePort(entry string) string {
	numbers := strings.FieldsFunc(entry, func(r rune) bool { return strings.ContainsRune(" \t;:-–.", r) })
	text := brief(entry) + " is no port (1 to 65535)"
	if len(numbers) < 2 || len(numbers) > 8 || slices.ContainsFunc(numbers, func(s string) bool { return !isDigits(s) }) {
		return text
	}
	if len(numbers) == 2 && strings.ContainsAny(entry, ":-–.") {
		return text + "; did you mean " + brief(strings.Join(numbers, "-")) + "?"
	}
	return text + "; did you mean " + brief(strings.Join(numbers, ",")) + "?"
}

// parseInterfaces reads interface names with commas or blanks between.
// Names are what the kernel allows: 1 to 15 bytes, no "/", no ":".
func parseInterfaces(v string) (names, problems []string) {
	const ifNameMax = 15 // IFNAMSIZ less its NUL
	if p := controlCharacter(v); p != nil {
		return nil, p
	}
	for _, name := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		switch {
		case slices.ContainsFunc([]string{"all", "any", "all_nlo"}, func(s string) bool { return strings.EqualFold(s, name) }):
			problems = append(problems, brief(name)+" is no interface; leave INTERFACES empty for every one that holds an address")
		case len(name) > ifNameMax:
			problems = append(problems, fmt.Sprintf("%s is no interface name: %d bytes (%d at most)", brief(name), len(name), ifNameMax))
		case name == "." || name == ".." || strings.ContainsAny(name, "/:") || strings.ContainsFunc(name, unicode.IsSpace):
			problems = append(problems, brief(name)+` is no interface name (no "/", ":" or blank in it)`)
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	if problems == nil && names == nil {
		problems = []string{quoted(v) + ": no interface in it"}
	}
	return names, problems
}

// controlCharacter reports the first control character of v but tab.
func controlCharacter(v string) []string {
	for i, r := range v {
		if r != '\t' && unicode.IsControl(r) {
			return []string{fmt.Sprintf("a control character (%U) at byte %d of the value", r, i+1)}
		}
	}
	return nil
}

// unit is one of a duration's, longest first.
type unit struct {
	letter byte
	length time.Duration
}

func units() [5]unit {
	return [5]unit{{'w', 7 * 24 * time.Hour}, {'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
}

const maxDuration = 366 * 24 * time.Hour

// parseDuration reads seconds ("90"), or numbers with units from the longest
// to the shortest ("1w", "1h30m"): 1 s to 366 d.
func parseDuration(v string) (time.Duration, string) {
	const strange = "no length of time; write it like 90s, 10m, 1h30m, 1d or 2w"
	const outside = "must be from 1s to 366d"
	t := strings.Trim(v, blanks)
	if isDigits(t) {
		t += "s"
	}
	var sum time.Duration
	next := 0 // the longest unit that may follow
	for t != "" {
		digits := 0
		for digits < len(t) && t[digits] >= '0' && t[digits] <= '9' {
			digits++
		}
		if digits == 0 || digits == len(t) {
			return 0, strange
		}
		table := units()
		at := slices.IndexFunc(table[next:], func(u unit) bool { return u.letter == t[digits] })
		if at < 0 {
			return 0, strange
		}
		next += at
		n, err := strconv.ParseUint(t[:digits], 10, 32)
		if err != nil || time.Duration(n) > maxDuration/table[next].length {
			return 0, outside
		}
		sum += time.Duration(n) * table[next].length
		t = t[digits+1:]
		next++
	}
	if sum < time.Second || sum > maxDuration {
		return 0, outside
	}
	return sum, ""
}

// ParseTime reads a length of time as the keys and the commands take it.
func ParseTime(v string) (time.Duration, error) {
	d, wrong := parseDuration(v)
	if wrong != "" {
		return 0, fmt.Errorf("%.30q: %s", v, wrong)
	}
	return d, nil
}

// ShowTime is what ParseTime reads as d, in full seconds.
func ShowTime(d time.Duration) string { return showDuration(d) }

// showDuration is what parseDuration reads as d; "" for 0.
func showDuration(d time.Duration) string {
	var b strings.Builder
	for _, u := range units() {
		if n := d / u.length; n > 0 {
			fmt.Fprintf(&b, "%d%c", n, u.letter)
			d -= n * u.length
		}
	}
	return b.String()
}
