package control

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"portsentry/internal/view"
)

func (b *backend) Ban(_ context.Context, who view.Caller, o view.Order) (view.Changed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caller, b.order = who, o
	return view.Changed{Bans: []view.Ban{}, Lifted: []view.Ban{}, Text: o.Prefix.String() + " is banned"}, b.err
}

func (b *backend) Reload(_ context.Context, who view.Caller, within time.Duration) (view.Changed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caller, b.within = who, within
	return view.Changed{Bans: []view.Ban{}, Lifted: []view.Ban{}, Text: "reloaded"}, b.err
}

func (b *backend) Pending(context.Context) ([]view.Pending, error) { return b.waiting, b.err }

func (b *backend) Confirm(_ context.Context, who view.Caller, number uint64) (view.Pending, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.caller = who
	for _, p := range b.waiting {
		if p.Number == number {
			return p, b.err
		}
	}
	return view.Pending{}, view.Refuse(410, "nothing waits under that number", "")
}

// What is asked for arrives as it was meant.
func TestChangesArrive(t *testing.T) {
	needRoot(t)
	b := newBackend()
	b.waiting = []view.Pending{{Number: 3, Change: "ban of 203.0.113.9 for 1h"}}
	_, path := start(t, b, "daemon")
	c := client(t, path)
	for _, tt := range []struct {
		method, url string
		status      int
		order       view.Order
		within      time.Duration
	}{
		{"POST", "/v1/bans/203.0.113.9", 200, view.Order{Prefix: netip.MustParsePrefix("203.0.113.9/32")}, 0},
		{"POST", "/v1/bans/2001:db8::%2F32?for=1d&reason=ticket+4711&force=true&confirm_within=5m&from=192.0.2.7,::ffff:192.0.2.8", 200, view.Order{
			Prefix: netip.MustParsePrefix("2001:db8::/32"), Length: 24 * time.Hour, Reason: "ticket 4711", Force: true, Within: 5 * time.Minute,
			From: []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8")},
		}, 0},
		{"POST", "/v1/bans/203.0.113.9/24", 400, view.Order{}, 0},
		{"POST", "/v1/bans/all", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?for=1y", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?force=perhaps", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?reason=%1b%5b2J", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?until=1h", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?for=1h&for=2h", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?%zz", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?confirm_within=2d", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?from=here", 400, view.Order{}, 0},
		{"POST", "/v1/bans/203.0.113.9?from=::1,::1,::1,::1,::1,::1,::1,::1,::1", 400, view.Order{}, 0},
		{"POST", "/v1/bans", 405, view.Order{}, 0},
		{"POST", "/v1/reload?confirm_within=90s", 200, view.Order{}, 90 * time.Second},
		{"GET", "/v1/reload", 405, view.Order{}, 0},
		{"GET", "/v1/pending", 200, view.Order{}, 0},
		{"POST", "/v1/pending/3", 200, view.Order{}, 0},
		{"POST", "/v1/pending/4", 410, view.Order{}, 0},
		{"POST", "/v1/pending/-1", 400, view.Order{}, 0},
		{"DELETE", "/v1/bans/all?confirm_within=5m", 200, view.Order{}, 0},
	} {
		b.order, b.within = view.Order{}, 0
		status, body := ask(t, c, tt.method, tt.url)
		if status != tt.status || !reflect.DeepEqual(b.order, tt.order) || b.within != tt.within {
			t.Errorf("%s %s: %d %s%+v, %v; want %d %+v, %v", tt.method, tt.url, status, body, b.order, b.within, tt.status, tt.order, tt.within)
		}
	}
}

// The group bans and unbans what a scanner's ban is of, at a bounded rate; the rest is
// root's.
func TestWhoMayChange(t *testing.T) {
	needRoot(t)
	member := &syscall.Credential{Uid: 60000, Gid: groupOf(t, "daemon")}
	_, path := start(t, newBackend(), "daemon")
	openWay(t, path)
	for _, tt := range []struct{ ask, want string }{
		{"POST /v1/bans/203.0.113.9", "200 "},
		{"POST /v1/bans/2001:db8::9", "200 "},
		{"POST /v1/bans/2001:db8:1:2::%2F64", "200 "},
		{"DELETE /v1/bans/203.0.113.9", "200 "},
		{"GET /v1/pending", "200 "},
		{"POST /v1/pending/1", "410 "}, // whose it is, the backend knows
		{"POST /v1/bans/203.0.113.9?force=true", `403 {"error":"--force is root's alone","hint":"try sudo"}`},
		{"POST /v1/bans/203.0.113.0%2F31", "403 "},
		{"POST /v1/bans/2001:db8::%2F63", "403 "},
		{"POST /v1/bans/64:ff9b::%2F64", "403 "}, // everybody who comes through a translator
		{"POST /v1/bans/2001:db8::%2F65", "403 "},
		{"DELETE /v1/bans/203.0.113.0%2F24", `403 {"error":"203.0.113.0/24 is a range, and ranges are root's alone","hint":"try sudo; group daemon`},
		{"DELETE /v1/bans/all", `403 {"error":"only root lifts all bans at once"`},
		{"POST /v1/reload", "403 "},
		{"PUT /v1/modes", "403 "},
	} {
		if got := askAs(t, path, member, tt.ask); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.ask, got, tt.want)
		}
	}
}

// Root does not wait for the others.
func TestMembersAreBounded(t *testing.T) {
	h := &changing{Server: &Server{group: "daemon"}, members: bucket{left: memberRate}}
	one := netip.MustParsePrefix("203.0.113.9/32")
	var no *view.Refusal
	for range 2 * memberRate {
		if err := h.may(view.Caller{UID: 60000}, one, false); err != nil && !errors.As(err, &no) {
			t.Fatal(err)
		}
	}
	if no == nil || no.Status != 429 {
		t.Errorf("members may change as fast as they like: %v", no)
	}
	if err := h.may(view.Caller{Root: true}, one, false); err != nil {
		t.Errorf("root has to wait: %v", err)
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	now := time.Unix(1_795_252_442, 0)
	for i := range 3 {
		n := 0
		for b.take(now) {
			n++
		}
		if n != memberRate {
			t.Errorf("second %d: %d at once, want %d", i, n, memberRate)
		}
		now = now.Add(time.Second)
	}
	if now = now.Add(-time.Hour); b.take(now) {
		t.Error("a clock that goes back makes room")
	}
}
