package sqlite

import (
	"context"
	"database/sql"
	"net/netip"
	"strings"

	"portsentry/internal/detect"
	"portsentry/internal/respond"
	"portsentry/internal/store"
)

// Lives are the bans that f asks for, by when they began, or ended, the last first: of
// prefixes inside f.Source, and of those it lies in.
func (j *Journal) Lives(ctx context.Context, f store.Filter) (out []store.Life, more bool, err error) {
	w := new(where)
	column := "began"
	if f.Ended {
		column = "ended"
		w.and("ended > 0")
	}
	w.during(column, &f)
	if f.Source.IsValid() {
		condition, args := around(f.Source)
		w.and(condition, args...)
	}
	if f.Kind != detect.KindNone {
		w.and("kind = ?", f.Kind.String())
	}
	var ids []int64
	more, err = j.ask(ctx, `SELECT id, addr, bits, host, began, port, proto, kind, ended, ending, ended_by, scan, packets,
		since, until, strength, scope, evidence, times, reason, asked_by FROM bans`, w,
		" ORDER BY "+column+" DESC", f.Limit, func(rows *sql.Rows) error {
			var l store.Life
			var addr, host, packets sql.RawBytes
			var id, began, ended int64
			var bits int
			var ending uint8
			var scan string
			var s state
			err := rows.Scan(append([]any{
				&id, &addr, &bits, &host, &began, &l.Port, &l.Proto, &l.Kind, &ended, &ending, &l.End.By, &scan, &packets,
			}, s.into()...)...)
			if err != nil {
				return err
			}
			s.set(&l.Ban)
			l.Prefix, l.Host, l.Since, l.Ended = bitsPrefix(addr, bits), bytesAddr(host), timeOf(began), timeOf(ended)
			if respond.Ending(ending) <= respond.Undone {
				l.End.Ending = respond.Ending(ending)
			}
			l.Packets, l.Found = bytesPackets(packets), textFound(scan)
			ids = append(ids, id)
			out = append(out, l)
			return nil
		})
	if err == nil {
		err = j.changesOf(ctx, ids, out)
	}
	return out, more, err
}

// around is the condition for prefixes inside p, and for those it lies in.
func around(p netip.Prefix) (condition string, args []any) {
	first, last := bounds(p)
	var b strings.Builder
	b.WriteString("(addr BETWEEN ? AND ?")
	args = append(args, first, last)
	for n := 1; n < p.Bits(); n++ {
		wider, err := p.Addr().Prefix(n)
		if err != nil {
			break
		}
		b.WriteString(" OR addr = ? AND bits = ?")
		args = append(args, addrBytes(wider.Addr()), prefixBits(wider))
	}
	b.WriteString(")")
	return b.String(), args
}

// changesOf adds what the bans were before.
func (j *Journal) changesOf(ctx context.Context, ids []int64, lives []store.Life) error {
	j.base.RLock()
	defer j.base.RUnlock()
	if len(ids) == 0 || j.read == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	st, err := j.read.PrepareContext(ctx, `SELECT since, until, strength, scope, evidence, times, reason, asked_by
		FROM ban_changes WHERE ban = ? ORDER BY since`)
	if err != nil {
		return err
	}
	defer st.Close()
	for i, id := range ids {
		rows, err := st.QueryContext(ctx, id)
		if err != nil {
			return err
		}
		for rows.Next() {
			var s state
			if err := rows.Scan(s.into()...); err != nil {
				rows.Close()
				return err
			}
			was := lives[i].Ban
			s.set(&was)
			lives[i].Changes = append(lives[i].Changes, was)
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	return nil
}
