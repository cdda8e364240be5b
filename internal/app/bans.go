package app

import (
	"context"
	"iter"
	"slices"

	"portsentry/internal/respond"
	"portsentry/internal/view"
)

// Bans is for control.State.
func (d *daemon) Bans(context.Context) (iter.Seq[*view.Ban], error) {
	done, err := d.ask()
	if err != nil {
		return nil, err
	}
	defer done()
	list := d.responder.Listing() // its rows need nothing that is ever closed
	return func(yield func(*view.Ban) bool) {
		var b view.Ban
		for row := range list.Rows() {
			if b = banRow(row); !yield(&b) {
				return
			}
		}
	}, nil
}

func banRow(row *respond.InForce) view.Ban {
	b := &row.Ban
	v := view.Ban{
		Prefix: b.Prefix, Scope: b.Scope.String(), Strength: b.Strength.String(), Evidence: b.Evidence.String(),
		Since: b.Since, Times: b.Times, Reason: b.Reason, Methods: row.Methods,
	}
	if len(row.Steps) > 0 {
		v.Methods = slices.Clone(v.Methods) // which many rows share
	}
	for _, s := range row.Steps {
		v.Methods = append(v.Methods, s.String())
	}
	if v.Methods == nil {
		v.Methods = []string{}
	}
	if !b.Until.IsZero() {
		until := b.Until // the whole of b would be kept for it
		v.Until = &until
	}
	if len(row.Lasting) > 0 {
		v.Note = stays(row.Lasting)
	}
	if row.Counted {
		dropped := row.Dropped // likewise
		v.Dropped, v.Alive = &dropped, row.Alive
	}
	return v
}
