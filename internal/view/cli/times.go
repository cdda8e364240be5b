package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"portsentry/internal/view"
)

// units are those of lengths of time, as in portsentry.conf.
var units = map[byte]time.Duration{
	's': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour,
}

// parseTime reads a point in time: how long ago (90s, 1h30m, 2d, 1w), a time of day, which
// is yesterday's where today's is yet to come, a day, or both; in the time zone of now,
// unless it says another.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if ago, ok := parseLength(s); ok {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			y, m, d := now.Date()
			of := func(day int) time.Time {
				return time.Date(y, m, day, t.Hour(), t.Minute(), t.Second(), 0, now.Location())
			}
			if today := of(d); !today.After(now) {
				return today, nil
			}
			return of(d - 1), nil
		}
	}
	return time.Time{}, &Error{2, fmt.Sprintf("--%s: %.40q is no time", flag, s), `give how long ago (90s, 1h, 2d, 1w) or when ("2026-11-21 09:30", 09:30, 2026-11-21)`}
}

// parseLength reads numbers with a unit each: 1h30m.
func parseLength(s string) (time.Duration, bool) {
	var sum time.Duration
	for rest := s; rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if n <= 0 {
			return 0, false
		}
		unit, ok := units[rest[n]]
		count, err := strconv.ParseInt(rest[:n], 10, 32)
		if !ok || err != nil {
			return 0, false
		}
		sum += time.Duration(count) * unit
		if sum < 0 || sum > 100*365*24*time.Hour {
			return 0, false
		}
		rest = rest[n+1:]
	}
	return sum, s != ""
}

// ago is how long ago t was, or the time itself.
func ago(t, now time.Time, exact bool) string {
	if exact {
		return t.In(now.Location()).Format(time.RFC3339)
	}
	return view.Span(now.Sub(t)) + " ago"
}

// clock is the time of day of t, with its day unless that is today's.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format("15:04:05.000")
	}
	return t.Format("2 Jan 15:04:05.000")
}

// Colours beside red: a colour is never the only sign.
const strong, green, yellow = "\x1b[1m", "\x1b[32m", "\x1b[33m"

// painted is text in a colour, if there are any.
func painted(colour bool, as, text string) string {
	if !colour || text == "" || as == "" {
		return text
	}
	return as + text + plain
}
