// Package ipset bans with two sets of our own, portsentry4 and portsentry6, for
// hosts whose firewall is iptables. Bans go in; the sets hold them with what is
// left of their time. What a set means is up to the rules that the owner adds
// (Rules): this package touches no rule. A set that no rule uses enforces
// nothing, so no bans are put into it.
//
// Sets are spoken to directly: the netlink library's own ipset code prints what
// it does not know of a newer kernel's answers.
package ipset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// size is how many bans a set has room for: as many as the book has.
const size = respond.MaxBans

// maxTimeout is the longest that the kernel times an element.
const maxTimeout = 2147483 * time.Second

// usedFor and unusedFor are how long an answer counts to whether a rule uses a
// set. A rule that the owner has just added is to hold for the very next probe;
// and without one every probe is a line, which costs more than the question.
const (
	usedFor   = time.Second
	unusedFor = 10 * time.Millisecond
)

// answerTime bounds how long the kernel may take for one answer.
const answerTime = 2 * time.Second

// Errors of a set.
var (
	ErrFull    = errors.New("the set is full")
	ErrForeign = errors.New("a set of that name is there, and of another kind")
)

// Sets are the two sets. Methods may be called from any goroutine.
type Sets struct {
	mu     sync.Mutex // one request at a time; guards all below
	conn   *netlink.Conn
	v4, v6 set
}

// set is one of the two, as the kernel last told.
const name4, name6 = "portsentry4", "portsentry6"

type set struct {
	name    string
	family  uint8
	command string // of the firewall for this family
	nets    bool   // it takes ranges, too: a hash:ip, of an earlier version or the owner's, does not

	used  bool // a rule uses it
	asked time.Time
}

// Open makes the sets, or takes over those that an earlier run, or the owner's
// boot script, has made. It needs CAP_NET_ADMIN and ip_set_hash_net, and works in the
// network namespace of the calling thread.
func Open() (*Sets, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, hint(err)
	}
	s := &Sets{
		conn: conn,
		v4:   set{name: name4, family: unix.NFPROTO_IPV4, command: "iptables"},
		v6:   set{name: name6, family: unix.NFPROTO_IPV6, command: "ip6tables"},
	}
	for _, f := range []*set{&s.v4, &s.v6} {
		if err := s.create(f); err != nil {
			return nil, errors.Join(hint(fmt.Errorf("%s: %w", f.name, err)), conn.Close())
		}
	}
	return s, nil
}

// Clear takes every ban out of the sets, which rules of the owner's may use, and says
// whether there was one. What has no end in them is the owner's own, and stays.
func Clear(ctx context.Context) (there bool, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return false, hint(err)
	}
	s := &Sets{conn: conn, v4: set{name: name4}, v6: set{name: name6}}
	defer s.Close()
	for _, f := range []*set{&s.v4, &s.v6} {
		bans, err := s.list(ctx, f, nil)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // no such set; no ip_set at all
			continue
		}
		for i := 0; err == nil && i < len(bans); i++ {
			err = s.Unban(ctx, bans[i])
		}
		if there = there || len(bans) > 0; err != nil {
			return there, hint(err)
		}
	}
	return there, nil
}

// Close gives the socket back. The sets stay, and with them the bans, until each
// ends by itself.
func (s *Sets) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn.Close()
}

// Rules are the two commands that make the sets mean something. Rule and set are
// matched after connections are looked at, before destination NAT, for this host
// and forwarded alike; connections that exist go on, and so does neighbour
// discovery, which is untracked.
func (s *Sets) Rules() []string {
	var out []string
	for _, f := range []*set{&s.v4, &s.v6} {
		out = append(out, fmt.Sprintf("%s -t mangle -I PREROUTING -m set --match-set %s src -m conntrack --ctstate NEW,INVALID -j DROP", f.command, f.name))
	}
	return out
}

// Referenced reports for each set whether any rule uses it, as of now.
func (s *Sets) Referenced() (v4, v6 bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range []*set{&s.v4, &s.v6} {
		if e := s.ask(f); e != nil {
			err = errors.Join(err, fmt.Errorf("ipset: %s: %w", f.name, e))
		}
	}
	return s.v4.used, s.v6.used, err
}

// ask finds out whether a rule uses f. What cannot be asked is not claimed.
func (s *Sets) ask(f *set) error {
	h, err := s.header(f.name)
	f.used, f.asked = err == nil && h.references > 0, time.Now()
	return err
}

// Name is the method's name in BLOCK_METHOD.
func (s *Sets) Name() string { return string(config.MethodIPSet) }

// Takes is for respond.Method. What a set's rule does covers all protocols. With
// no rule for the set nothing is enforced, so no ban is taken then; those that
// are in the set already count again as soon as there is one. That a rule only
// names the set is not known, nor asked.
func (s *Sets) Takes(b *respond.Ban) bool {
	if b.Scope != judge.AllProtocols || b.Strength < judge.Soft || b.Prefix.Addr().Is4In6() ||
		b.Until.IsZero() || time.Until(b.Until) > maxTimeout || b.Prefix.Bits() <= 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.of(b.Prefix)
	if !f.nets && !b.Prefix.IsSingleIP() {
		return false
	}
	counts := unusedFor
	if f.used {
		counts = usedFor
	}
	if time.Since(f.asked) > counts {
		s.ask(f)
	}
	return f.used
}

// Enforces is for respond.Method: whatever Takes takes.
func (s *Sets) Enforces() bool { return true }

// Ends is for respond.Method: elements have a timeout.
func (s *Sets) Ends() bool { return true }

// Stops is for respond.Stopper: the rule spares existing connections always.
func (s *Sets) Stops(*respond.Ban) string { return "new connections" }

func (s *Sets) of(p netip.Prefix) *set {
	if p.Addr().Is4() {
		return &s.v4
	}
	return &s.v6
}

// BanAll is for respond.Method. What is new goes in first, for that alone can
// fail for want of room, and comes out again if any of it does.
func (s *Sets) BanAll(ctx context.Context, bans []respond.Ban) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var added, there []*respond.Ban
	for i := range bans {
		b := &bans[i]
		err := s.element(ctx, cmdAdd, netlink.Excl, b)
		switch {
		case err == nil:
			added = append(added, b)
		case errors.Is(err, errExist):
			there = append(there, b)
		default:
			return s.takeBack(added, b, err)
		}
	}
	for _, b := range there { // with the new time
		if err := s.element(ctx, cmdAdd, 0, b); err != nil {
			return s.takeBack(added, b, err)
		}
	}
	return nil
}

// Holds is for respond.Checker: the kernel is asked whether each is in its set.
func (s *Sets) Holds(ctx context.Context, bans []respond.Ban) (missing []int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range bans {
		b := &bans[i]
		err := s.element(ctx, cmdTest, 0, b)
		switch {
		case errors.Is(err, errExist): // which is the answer to a test of what is not there
			missing = append(missing, i)
		case err != nil:
			return nil, fmt.Errorf("ipset: %s: %v: %w", s.of(b.Prefix).name, b.Prefix, err)
		}
	}
	return missing, nil
}

// takeBack undoes half of a BanAll, even when there is no time left for it.
func (s *Sets) takeBack(added []*respond.Ban, failed *respond.Ban, why error) error {
	err := fmt.Errorf("ipset: %s: %v: %w", s.of(failed.Prefix).name, failed.Prefix, why)
	for _, b := range added {
		err = errors.Join(err, s.element(context.Background(), cmdDel, 0, b))
	}
	return err
}

// Unban is for respond.Method.
func (s *Sets) Unban(ctx context.Context, b respond.Ban) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.element(ctx, cmdDel, 0, &b); err != nil {
		return fmt.Errorf("ipset: %s: %v: %w", s.of(b.Prefix).name, b.Prefix, err)
	}
	return nil
}

// hint adds what to do about an error of starting.
func hint(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("ipset: %w (run as root or with CAP_NET_ADMIN)", err)
	case errors.Is(err, ErrForeign):
		return fmt.Errorf("ipset: %w (remove it with `ipset destroy`, or make it hash:ip or hash:net with a timeout)", err)
	case errors.Is(err, errNoType), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("ipset: %w (needs a kernel with ip_set and ip_set_hash_net)", err)
	}
	return fmt.Errorf("ipset: %w", err)
}
