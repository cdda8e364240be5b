package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"time"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// banWriter writes beginnings and ends of bans within one transaction.
type banWriter struct {
	find, insert, update, change, end *sql.Stmt
}

func prepareBans(ctx context.Context, tx *sql.Tx) (*banWriter, error) {
	s := new(banWriter)
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&s.find, `SELECT id, since, until, strength, scope, evidence, times, reason, asked_by FROM bans WHERE addr = ? AND bits = ? AND ended = 0`},
		{&s.insert, `INSERT INTO bans (addr, bits, host, began, since, until, strength, scope, evidence, times, port, proto, kind, reason, asked_by, scan, packets)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`},
		{&s.update, `UPDATE bans SET since = ?2, until = ?3, strength = ?4, scope = ?5, evidence = ?6, times = ?7, reason = ?8, asked_by = ?9,
			packets = iif(length(?10) > 0, ?10, packets), scan = iif(?11 = '', scan, ?11) WHERE id = ?1`},
		{&s.change, `INSERT INTO ban_changes (ban, since, until, strength, scope, evidence, times, reason, asked_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING`},
		{&s.end, `UPDATE bans SET ended = ?, ending = ?, ended_by = ? WHERE addr = ? AND bits = ? AND ended = 0`},
	} {
		st, err := tx.PrepareContext(ctx, p.query)
		if err != nil {
			s.close()
			return nil, err
		}
		*p.to = st
	}
	return s, nil
}

func (s *banWriter) close() {
	for _, st := range []*sql.Stmt{s.find, s.insert, s.update, s.change, s.end} {
		if st != nil {
			st.Close()
		}
	}
}

// state is what may change of a ban.
type state struct {
	since, until              int64
	strength, scope, evidence uint8
	times                     int
	reason, by                string
}

func stateOf(b *respond.Ban) state {
	return state{nanos(b.Since), nanos(b.Until), uint8(b.Strength), uint8(b.Scope), uint8(b.Evidence), b.Times, b.Reason, b.By}
}

func (s *state) into() []any {
	return []any{&s.since, &s.until, &s.strength, &s.scope, &s.evidence, &s.times, &s.reason, &s.by}
}

func (s *state) args(id int64) []any {
	return []any{id, s.since, s.until, s.strength, s.scope, s.evidence, s.times, s.reason, s.by}
}

// set makes b what s says.
func (s *state) set(b *respond.Ban) {
	b.Since, b.Until = timeOf(s.since), timeOf(s.until)
	b.Strength, b.Scope, b.Evidence = judge.Strength(s.strength%4), judge.Scope(s.scope%3), judge.Evidence(s.evidence%4)
	b.Times, b.Reason, b.By = s.times, s.reason, s.by
}

// began writes a ban that is new, or what one that stands has become.
func (s *banWriter) began(ctx context.Context, e *noted) error {
	b := &e.ban
	addr, bits, now := addrBytes(b.Prefix.Addr()), prefixBits(b.Prefix), stateOf(b)
	var id int64
	var was state
	err := s.find.QueryRowContext(ctx, addr, bits).Scan(append([]any{&id}, was.into()...)...)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return s.begin(ctx, e, now)
	case err != nil:
		return err
	case was == now:
		return nil // it is told again
	case was.until > 0 && was.until <= now.since: // nobody has said that it ended
		if _, err := s.end.ExecContext(ctx, was.until, respond.Expired, "", addr, bits); err != nil {
			return err
		}
		return s.begin(ctx, e, now)
	}
	became := now
	if was.since == now.since { // without a new beginning
		became.since = max(time.Now().UnixNano(), was.since+1)
	}
	for _, st := range []state{was, became} {
		if _, err := s.change.ExecContext(ctx, st.args(id)...); err != nil {
			return err
		}
	}
	_, err = s.update.ExecContext(ctx, append(now.args(id), packetBytes(e.packets), foundText(&e.scan))...)
	return err
}

func (s *banWriter) begin(ctx context.Context, e *noted, n state) error {
	b := &e.ban
	_, err := s.insert.ExecContext(ctx, addrBytes(b.Prefix.Addr()), prefixBits(b.Prefix), addrBytes(e.host), n.since, n.since, n.until,
		n.strength, n.scope, n.evidence, n.times, b.Port, b.Proto, b.Kind, n.reason, n.by, foundText(&e.scan), packetBytes(e.packets))
	return err
}

func (s *banWriter) ended(ctx context.Context, e *noted) error {
	_, err := s.end.ExecContext(ctx, e.time, uint8(e.end.Ending), e.end.By, addrBytes(e.ban.Prefix.Addr()), prefixBits(e.ban.Prefix))
	return err
}

// Standing are the bans that stand, as far as anybody has said, and whose time has not
// come: with an error those that could be read. It is for the start. room is told how
// many there are before they are read.
func (j *Journal) Standing(ctx context.Context, room func(bans int)) ([]respond.InForce, error) {
	j.base.RLock()
	defer j.base.RUnlock()
	if !j.kept {
		return nil, nil
	}
	var n int
	if err := j.read.QueryRowContext(ctx, "SELECT count(*) FROM bans WHERE ended = 0").Scan(&n); err != nil {
		return nil, err
	}
	room(n)
	rows, err := j.read.QueryContext(ctx, `SELECT addr, bits, host, port, proto, kind, since, until, strength, scope, evidence, times, reason, asked_by
		FROM bans WHERE ended = 0 AND (until = 0 OR until > ?)`, time.Now().UnixNano())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]respond.InForce, 0, n)
	var addr, host sql.RawBytes
	var bits int
	var b respond.Ban
	var s state
	var words words
	into := append([]any{&addr, &bits, &host, &b.Port, &b.Proto, &b.Kind}, s.into()...)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return out, err
		}
		s.reason, b.Kind = words.once(s.reason), words.once(b.Kind)
		b.Prefix = bitsPrefix(addr, bits)
		if s.set(&b); b.Prefix.IsValid() {
			out = append(out, respond.InForce{Ban: b, Host: bytesAddr(host)})
		}
	}
	return out, rows.Err()
}

// words keeps texts that many bans share once, as far as they are few.
type words map[string]string

func (w *words) once(s string) string {
	if known, ok := (*w)[s]; ok {
		return known
	}
	if *w == nil {
		*w = make(words)
	}
	if len(*w) < 1024 {
		(*w)[s] = s
	}
	return s
}

// Past tells of the last ban, which has ended, of each prefix: those that ended last
// come first, most of them at most. Whom somebody has forgiven is not among them.
func (j *Journal) Past(ctx context.Context, most int, tell func(b *respond.Ban, ended time.Time)) error {
	j.base.RLock()
	defer j.base.RUnlock()
	if !j.kept {
		return nil
	}
	rows, err := j.read.QueryContext(ctx, `SELECT addr, bits, times, evidence, ended, ending FROM bans WHERE ended > 0 ORDER BY ended DESC LIMIT ?`, most)
	if err != nil {
		return err
	}
	defer rows.Close()
	known := make(map[netip.Prefix]bool)
	var addr sql.RawBytes
	for rows.Next() {
		var b respond.Ban
		var bits int
		var ended int64
		var ending respond.Ending
		if err := rows.Scan(&addr, &bits, &b.Times, &b.Evidence, &ended, &ending); err != nil {
			return err
		}
		b.Prefix = bitsPrefix(addr, bits)
		if known[b.Prefix] || !b.Prefix.IsValid() {
			continue
		}
		known[b.Prefix] = true
		if ending == respond.Expired {
			tell(&b, timeOf(ended))
		}
	}
	return rows.Err()
}
