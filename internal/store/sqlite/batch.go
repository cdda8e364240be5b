package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// batch is what one transaction takes.
type batch struct {
	slot   int64
	rows   []row
	ports  map[portKey]uint32
	events []noted
}

// noted is an event with what is known beside it.
type noted struct {
	event
	packets []store.Packet
	scan    detect.Found
}

// errNotOpen: there is no database, not even in memory.
var errNotOpen = errors.New("no database is open")

// fill takes what waits. It reports where in the queue it ends, and whether more waits.
func (j *Journal) fill(b *batch, rows bool) (end uint64, more bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if b.rows == nil {
		b.rows, b.events, b.ports = make([]row, 0, atOnce), make([]noted, 0, atOnce), make(map[portKey]uint32)
	}
	b.events, b.rows = b.events[:0], b.rows[:0]
	for end = j.queue.first; end < j.queue.next && len(b.events) < atOnce; end++ {
		n := noted{event: *j.queue.at(end)}
		if n.what == began {
			n.packets = j.ring.recent(j.hash(n.host), n.host, mostOfBan, n.ban.Since.UnixNano())
			n.scan = j.scans.of(n.host)
		}
		b.events = append(b.events, n)
	}
	if rows {
		b.slot = j.seen.slot
		b.rows = j.seen.take(b.rows, b.ports)
	}
	return end, end < j.queue.next || rows && len(j.seen.list) > 0
}

// transact writes one batch, all of it or nothing, and reports whether more waits.
func (w *writer) transact(ctx context.Context, rows bool) (more bool, err error) {
	j, b := w.j, &w.batch
	end, more := j.fill(b, rows)
	if len(b.rows)+len(b.events) > 0 {
		err = w.put(ctx, func(tx *sql.Tx) error { return b.put(ctx, tx) })
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil && !unfit(err) {
		j.seen.back(j.hash, b.rows, b.ports)
		return false, err
	}
	if err != nil { // it would be so for ever
		j.queue.lost += uint64(len(b.rows) + len(b.events))
	} else {
		j.stats.Written += uint64(len(b.rows) + len(b.events))
	}
	j.seen.taken = 0
	j.queue.drop(end)
	clear(b.ports)
	clear(b.events)
	return more, err
}

// put does something in a transaction.
func (w *writer) put(ctx context.Context, do func(tx *sql.Tx) error) error {
	db := w.j.write // which the writer alone changes
	if db == nil {
		return errNotOpen
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		tx.Rollback() // it may have been rolled back by what went wrong
		return err
	}
	return tx.Commit()
}

func (b *batch) put(ctx context.Context, tx *sql.Tx) error {
	return errors.Join(b.putRows(ctx, tx), b.putPorts(ctx, tx), b.putEvents(ctx, tx))
}

func (b *batch) putRows(ctx context.Context, tx *sql.Tx) error {
	if len(b.rows) == 0 {
		return nil
	}
	seen, err := tx.PrepareContext(ctx, `INSERT INTO sightings (slot, source, kind, proto, first, last, count, triggered, ports, port, dst)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last),
			count = count + excluded.count, triggered = triggered + excluded.triggered, ports = max(ports, excluded.ports)`)
	if err != nil {
		return err
	}
	defer seen.Close()
	source, err := tx.PrepareContext(ctx, `INSERT INTO sources (source, name, first, last, probes, kinds, ports, evidence, scan, scanned)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last),
			probes = probes + excluded.probes, kinds = kinds | excluded.kinds, ports = max(ports, excluded.ports),
			evidence = max(evidence, excluded.evidence), name = iif(excluded.name = '', name, excluded.name),
			scan = iif(excluded.scanned > scanned, excluded.scan, scan), scanned = max(scanned, excluded.scanned)`)
	if err != nil {
		return err
	}
	defer source.Close()
	for i := range b.rows {
		r := &b.rows[i]
		addr, ports := addrBytes(r.source), r.distinct()
		_, err := seen.ExecContext(ctx, b.slot, addr, r.kind, r.proto, r.first, r.last, int64(r.count), int64(r.triggered), ports, r.port, addrBytes(r.dst))
		if err != nil {
			return err
		}
		if !r.source.IsValid() {
			continue
		}
		_, err = source.ExecContext(ctx, addr, r.name, r.first, r.last, int64(r.count), int64(1)<<(r.kind%63), ports, r.evidence, foundText(&r.scan), r.scanned)
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) putPorts(ctx context.Context, tx *sql.Tx) error {
	if len(b.ports) == 0 {
		return nil
	}
	st, err := tx.PrepareContext(ctx, `INSERT INTO ports (slot, proto, port, count) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET count = count + excluded.count`)
	if err != nil {
		return err
	}
	defer st.Close()
	for p, n := range b.ports {
		if _, err := st.ExecContext(ctx, b.slot, p.proto, p.port, n); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) putEvents(ctx context.Context, tx *sql.Tx) error {
	if len(b.events) == 0 {
		return nil
	}
	s, err := prepareBans(ctx, tx)
	if err != nil {
		return err
	}
	defer s.close()
	for i := range b.events {
		switch e := &b.events[i]; e.what {
		case began:
			err = s.began(ctx, e)
		case ended:
			err = s.ended(ctx, e)
		case changed:
			_, err = tx.ExecContext(ctx, "INSERT INTO changes (time, asked_by, text) VALUES (?, ?, ?)", e.time, e.by, e.text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// expire ends bans whose time came while nobody was there to see it.
func (w *writer) expire(ctx context.Context) error {
	return w.put(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE bans SET ended = until, ending = ? WHERE ended = 0 AND until > 0 AND until <= ?",
			respond.Expired, time.Now().UnixNano())
		return err
	})
}

// copyStanding tells a database that is begun in the middle of bans that are in force.
func (w *writer) copyStanding(ctx context.Context) error {
	if w.j.standing == nil {
		return nil
	}
	rows := w.j.standing()
	if w.j.base.RLock(); !w.j.kept {
		rows = rows[:min(len(rows), memoryBans)]
	}
	w.j.base.RUnlock()
	for len(rows) > 0 {
		n := min(len(rows), 8*atOnce)
		err := w.put(ctx, func(tx *sql.Tx) error {
			s, err := prepareBans(ctx, tx)
			if err != nil {
				return err
			}
			defer s.close()
			for i := range rows[:n] {
				host := rows[i].Host
				if !host.IsValid() {
					host = rows[i].Ban.Prefix.Addr()
				}
				if err := s.began(ctx, &noted{event: event{ban: rows[i].Ban, host: host}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}
