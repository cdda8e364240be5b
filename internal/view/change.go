package view

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"portsentry/internal/config"
	"portsentry/internal/detect"
)

// QueryWithin is the parameter of requests for changes that are to be confirmed, All
// the target of a DELETE that means every ban.
const (
	QueryWithin = "confirm_within"
	All         = "all"
)

// Order is what a person asks for with `portsentry ban`.
type Order struct {
	Prefix netip.Prefix
	Length time.Duration // 0: BAN_TIME
	Reason string
	Force  bool          // also who is spared or connected, or asks himself (root alone)
	Within time.Duration // taken back unless confirmed by then; 0: it stands
	From   []netip.Addr  // where who asks is logged in from, as he says himself
}

// Lifting is what a person asks for with `portsentry unban`.
type Lifting struct {
	Prefix netip.Prefix // every ban inside it, and the one it lies in; invalid: all there are (root alone)
	Within time.Duration
}

// Changed is the answer to a change.
type Changed struct {
	Bans   []Ban `json:"bans"`   // that began, or that stand with another length
	Lifted []Ban `json:"lifted"` // that ended
	// Pending is the number by which the change is confirmed, by Confirm at the
	// latest; 0: it stands.
	Pending uint64     `json:"pending,omitempty"`
	Confirm *time.Time `json:"confirm_by,omitempty"`
	Text    string     `json:"text"` // what was done, in words
}

// Unbanned is the answer of DELETE PathBans/ADDR. Lifted is empty when nothing
// was banned.
type Unbanned struct {
	Address netip.Addr `json:"address"` // of a range the first; "" for all
	Lifted  []Ban      `json:"lifted"`
	Pending uint64     `json:"pending,omitempty"` // as in Changed, like the rest
	Confirm *time.Time `json:"confirm_by,omitempty"`
	Text    string     `json:"text,omitempty"`
}

// Pending is a change that is taken back unless it is confirmed.
type Pending struct {
	Number  uint64    `json:"number"`
	Change  string    `json:"change"` // what was done, in words
	UID     int       `json:"uid"`    // of who asked for it
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Confirm time.Time `json:"confirm_by"`
}

// PendingList is the answer of GET PathPending, the first to be taken back first.
type PendingList struct {
	Pending []Pending `json:"pending"`
}

// Refusal is the body of every answer whose status is not 200, and the error that a
// backend refuses with.
type Refusal struct {
	Status   int      `json:"-"` // of HTTP
	Message  string   `json:"error"`
	Hint     string   `json:"hint,omitempty"`
	Mistakes []string `json:"mistakes,omitempty"` // of a configuration that was not put in force
}

// Refuse makes a Refusal.
func Refuse(status int, message, hint string) *Refusal {
	return &Refusal{Status: status, Message: message, Hint: hint}
}

func (r *Refusal) Error() string {
	if r.Hint == "" {
		return r.Message
	}
	return r.Message + "; " + r.Hint
}

// ParseTarget reads whom to ban or unban: an address, or a range as
// 203.0.113.0/24 without bits beyond it. A zone is dropped and an IPv4-mapped
// address (RFC 4291 section 2.5.5.2) unmapped: no ban has either.
func ParseTarget(s string) (netip.Prefix, error) {
	text, length, isRange := strings.Cut(s, "/")
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, wrong("%.60q is no address; give one like 203.0.113.9 or 2001:db8::9", s)
	}
	a = a.WithZone("")
	if !isRange {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(a.String() + "/" + length)
	if err != nil {
		return netip.Prefix{}, wrong("%.60q is no range: %q is no length from 0 to %d; give one like 203.0.113.0/24 or 2001:db8::/64", s, length, a.BitLen())
	}
	if a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, wrong("%.60q names a range by an address in it; did you mean %s or %s?", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// Single reports whether p is what a scanner's ban is of and what the group may ban:
// one address, or the /64 that an IPv6 host has to itself.
func Single(p netip.Prefix) bool {
	return p.IsSingleIP() || p == detect.OneHost(p.Addr())
}

// ParseLength reads how long a ban is to last.
func ParseLength(s string) (time.Duration, error) {
	d, err := config.ParseTime(s)
	if err != nil {
		return 0, wrong("%v", err)
	}
	return d, nil
}

// maxWithin bounds how long a change waits: who has not come back for a day has
// locked himself out.
const maxWithin = 24 * time.Hour

// ParseWithin reads how long a change waits to be confirmed.
func ParseWithin(s string) (time.Duration, error) {
	d, err := ParseLength(s)
	if err == nil && d > maxWithin {
		err = wrong("%.30q: no change waits for more than a day to be confirmed", s)
	}
	return d, err
}

// maxFrom bounds how many addresses somebody is logged in from.
const maxFrom = 8

// ParseFrom reads the addresses that somebody is logged in from, commas between them.
func ParseFrom(s string) (from []netip.Addr, err error) {
	if s == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(s, ",") {
		a, err := netip.ParseAddr(text)
		if err != nil || len(from) >= maxFrom {
			return nil, wrong("%.60q is no list of at most %d addresses", s, maxFrom)
		}
		from = append(from, a.WithZone("").Unmap())
	}
	return from, nil
}

// ShowFrom is what ParseFrom reads as from, as far as there is room.
func ShowFrom(from []netip.Addr) string {
	var out []string
	for _, a := range from[:min(len(from), maxFrom)] {
		out = append(out, a.WithZone("").String())
	}
	return strings.Join(out, ",")
}

// maxReason bounds what a person says about a ban, in bytes.
const maxReason = 200

// CheckReason lets a text that a person gives for a ban pass, or says what is wrong
// with it: it stands in logs and tables, in one line.
func CheckReason(s string) (string, error) {
	switch {
	case len(s) > maxReason:
		return "", wrong("the reason has %d bytes, and %d is all there is room for", len(s), maxReason)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "", wrong("the reason has characters that are not printable; give one line of text")
	}
	return strings.TrimSpace(s), nil
}

// wrong is a Refusal of a request that makes no sense.
func wrong(format string, args ...any) error {
	return Refuse(http.StatusBadRequest, fmt.Sprintf(format, args...), "")
}
