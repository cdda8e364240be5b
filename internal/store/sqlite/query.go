package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"portsentry/internal/detect"
	"portsentry/internal/store"
)

const (
	mostRows  = 10_000                 // of an answer
	askTime   = 10 * time.Second       // that an answer may take
	writeTime = 300 * time.Millisecond // that an answer waits for what is not written yet
)

// Flush waits until what has come in so far is written, or ctx ends. Where the disk
// does not take it, it does not wait.
func (j *Journal) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case j.asked <- done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// where collects conditions and what stands for their question marks.
type where struct {
	conditions []string
	args       []any
}

func (w *where) and(condition string, args ...any) {
	w.conditions = append(w.conditions, condition)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// during adds the span of f for rows that have a time.
func (w *where) during(column string, f *store.Filter) {
	if !f.Since.IsZero() {
		w.and(column+" >= ?", f.Since.UnixNano())
	}
	if !f.Until.IsZero() {
		w.and(column+" < ?", f.Until.UnixNano())
	}
}

// inSlots adds the span of f for rows of intervals.
func (w *where) inSlots(f *store.Filter) {
	if !f.Since.IsZero() {
		w.and("slot >= ?", slotOf(f.Since.UnixNano()))
	}
	if !f.Until.IsZero() {
		w.and("slot <= ?", slotOf(f.Until.UnixNano()))
	}
}

// among adds the addresses of p, if there is one.
func (w *where) among(column string, p netip.Prefix) {
	switch {
	case !p.IsValid():
	case p.IsSingleIP():
		w.and(column+" = ?", addrBytes(p.Addr()))
	default:
		first, last := bounds(p)
		w.and(column+" BETWEEN ? AND ?", first, last)
	}
}

// ask runs a query whose rows scan reads, one row at a call, and reports whether there
// are more than limit.
func (j *Journal) ask(ctx context.Context, query string, w *where, order string, limit int, scan func(rows *sql.Rows) error) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	soon, enough := context.WithTimeout(ctx, writeTime)
	err = j.Flush(soon)
	enough()
	if err != nil && ctx.Err() != nil {
		return false, err
	}
	if limit <= 0 || limit > mostRows {
		limit = mostRows
	}
	j.base.RLock()
	defer j.base.RUnlock()
	if j.read == nil {
		return false, errNotOpen
	}
	rows, err := j.read.QueryContext(ctx, query+w.String()+order+fmt.Sprintf(" LIMIT %d", limit+1), w.args...)
	if err != nil {
		return false, j.broke(err)
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		if n == limit {
			return true, nil
		}
		if err := scan(rows); err != nil {
			return false, j.broke(err)
		}
	}
	return false, j.broke(rows.Err())
}

// broke tells the writer of an error that says that the file is damaged.
func (j *Journal) broke(err error) error {
	if damaged(err) {
		select {
		case j.broken <- err:
		default:
		}
	}
	return err
}

// Check looks through the whole file once. One that is damaged is set aside.
func (j *Journal) Check(ctx context.Context) error {
	j.base.RLock()
	defer j.base.RUnlock()
	if !j.kept {
		return nil
	}
	var found string
	err := j.read.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		j.broke(err)
	case found != "ok":
		j.broke(fmt.Errorf("%w: %s", errDamaged, strings.TrimSpace(found)))
	}
	return nil
}

// Events are the rows of what was seen that f asks for, newest first. more: there are
// others, older.
func (j *Journal) Events(ctx context.Context, f store.Filter) (out []store.Interval, more bool, err error) {
	w := new(where)
	w.inSlots(&f)
	if !f.Since.IsZero() {
		w.and("last >= ?", f.Since.UnixNano())
	}
	if !f.Until.IsZero() {
		w.and("first < ?", f.Until.UnixNano())
	}
	w.among("source", f.Source)
	if f.Kind != detect.KindNone {
		w.and("kind = ?", f.Kind)
	}
	more, err = j.ask(ctx, "SELECT source, kind, proto, first, last, count, triggered, ports, port, dst FROM sightings", w,
		" ORDER BY slot DESC, last DESC", f.Limit, func(rows *sql.Rows) error {
			var i store.Interval
			var source, dst sql.RawBytes
			var first, last int64
			err := rows.Scan(&source, &i.Kind, &i.Proto, &first, &last, &i.Count, &i.Triggered, &i.Ports, &i.Port, &dst)
			i.Source, i.Dst, i.First, i.Last = bytesAddr(source), bytesAddr(dst), timeOf(first), timeOf(last)
			out = append(out, i)
			return err
		})
	return out, more, err
}

// Sources are the sources that f asks for, the last to be seen first.
func (j *Journal) Sources(ctx context.Context, f store.Filter) (out []store.Source, more bool, err error) {
	w := new(where)
	if !f.Since.IsZero() {
		w.and("last >= ?", f.Since.UnixNano())
	}
	if !f.Until.IsZero() {
		w.and("first < ?", f.Until.UnixNano())
	}
	w.among("source", f.Source)
	if f.Kind != detect.KindNone {
		w.and("kinds & ? > 0", int64(1)<<(f.Kind%63))
	}
	more, err = j.ask(ctx, `SELECT source, name, first, last, probes, kinds, ports, evidence, scan,
		(SELECT count(*) FROM bans WHERE addr = source AND bits = 128) FROM sources`, w,
		" ORDER BY last DESC", f.Limit, func(rows *sql.Rows) error {
			var s store.Source
			var source sql.RawBytes
			var first, last, kinds int64
			var scan string
			err := rows.Scan(&source, &s.Name, &first, &last, &s.Probes, &kinds, &s.Ports, &s.Evidence, &scan, &s.Bans)
			s.Addr, s.First, s.Last, s.Scan = bytesAddr(source), timeOf(first), timeOf(last), textFound(scan)
			s.Evidence %= 4
			s.Tool, s.Campaign = s.Scan.Tool, s.Scan.Campaign
			for k := detect.Kind(1); k < 63; k++ {
				if kinds>>k&1 != 0 {
					s.Kinds = append(s.Kinds, k)
				}
			}
			out = append(out, s)
			return err
		})
	return out, more, err
}

// Changes are what people have changed, newest first. Of f only the span counts.
func (j *Journal) Changes(ctx context.Context, f store.Filter) (out []store.Change, more bool, err error) {
	w := new(where)
	w.during("time", &f)
	more, err = j.ask(ctx, "SELECT time, asked_by, text FROM changes", w, " ORDER BY time DESC, id DESC", f.Limit, func(rows *sql.Rows) error {
		var c store.Change
		var t int64
		err := rows.Scan(&t, &c.By, &c.Text)
		c.Time = timeOf(t)
		out = append(out, c)
		return err
	})
	return out, more, err
}
