package nft

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// wish is what a rebuild is to do besides what the options say.
type wish struct {
	fresh bool // counters begin at zero
	// bans are all confirmed bans there are to be; nil: those that are there
	bans map[*nftables.Set][]nftables.SetElement
}

// rebuild makes the table what the options say, in one transaction that the
// kernel refuses (ERESTART) if another program changed the ruleset since we
// looked, as container run-times and firewalld do. The interval sets come
// before, when no rule names them yet; where they are taken away until then (ENOENT:
// somebody flushes the ruleset) all of it is done again.
func (t *Table) rebuild(w wish) error {
	const tries = 50 // of a few milliseconds each: a script may flush again and again
	var err error
	for range tries {
		if err = t.prepareAndRebuild(w); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return err
}

func (t *Table) prepareAndRebuild(w wish) error {
	before, nets := t.lay.turn, t.nets
	undo, err := t.prepare()
	if err != nil {
		t.discard()
		t.lay.number(before)
		t.nets = nets
		return err
	}
	for range 10 {
		if err = t.tryRebuild(w); err == nil {
			t.ours = t.news.look()
			return nil
		}
		t.discard()
		if !errors.Is(err, unix.ERESTART) {
			break
		}
	}
	undo()
	t.lay.number(before)
	t.nets = nets
	if undone := t.conn.Flush(); !errors.Is(undone, unix.ENOENT) { // which is: not there any more
		err = errors.Join(err, undone)
	}
	return err
}

// prepare makes the interval sets anew. undo queues their removal.
func (t *Table) prepare() (undo func(), err error) {
	_, _, sets, err := t.find()
	if err != nil {
		return nil, err
	}
	spare4, spare6, err := spareElements(t.opt.Spare)
	if err != nil {
		return nil, err
	}
	odd := less(t.opt.TrapsTCP, t.opt.EphemeralFirst, t.opt.EphemeralLast)
	elements := map[*nftables.Set][]nftables.SetElement{
		t.lay.v4.spare: spare4, t.lay.v6.spare: spare6,
		t.lay.trapsTCP: portElements(t.opt.TrapsTCP), t.lay.trapsFIN: portElements(odd),
		t.lay.trapsUDP: portElements(less(t.opt.TrapsUDP, t.opt.EphemeralFirst, t.opt.EphemeralLast)),
	}
	t.nets = t.ranges.segments(t.lay, time.Now())
	for s, parts := range t.nets {
		elements[s] = netElements(parts)
	}
	t.lay.number(t.lay.nextNumber(sets))
	t.conn.AddTable(t.lay.table)
	for _, i := range t.lay.intervals() {
		i.set.ID = 0 // one of this transaction
		if err := t.conn.AddSet(i.set, elements[i.set]); err != nil {
			return nil, err
		}
	}
	if err := t.conn.Flush(); err != nil {
		return nil, err
	}
	for _, i := range t.lay.intervals() {
		i.set.ID = 0
	}
	return func() {
		if len(sets) == 0 { // nor was there a table
			t.conn.DelTable(t.lay.table)
			return
		}
		for _, i := range t.lay.intervals() {
			t.conn.DelSet(i.set)
		}
	}, nil
}

func (t *Table) tryRebuild(w wish) error {
	gen, err := t.conn.GetGen()
	if err != nil {
		return err
	}
	old, err := t.clear(w)
	if err != nil {
		return err
	}
	if err := t.addSets(old, w); err != nil {
		return err
	}
	for _, name := range []string{droppedFull, droppedSoft, droppedLimited, trapHits, overflow, unremembered} {
		t.conn.AddObj(&nftables.NamedObj{Table: t.lay.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	if err := t.rules(); err != nil {
		return err
	}
	if err := t.conn.FlushWithGenID(gen.ID); err != nil {
		return err
	}
	t.bare = w.bans == nil && (t.bare || !w.fresh && !t.lay.complete(old))
	return nil
}

// oldSet is what becomes of a lasting set.
type oldSet struct {
	kept     bool                  // it is as we would make it, and stays with its elements
	elements []nftables.SetElement // otherwise: what is left of its bans
}

// clear queues the table itself and the removal of all that an earlier run
// left in it, but for the sets that may stay. Other names than ours go too.
//
// A base chain that is as we would make it stays and gets other rules: a packet
// then finds either the old ones or the new. Between a chain that goes and one
// that comes in its place it could slip through.
func (t *Table) clear(w wish) (map[string]oldSet, error) {
	chains, objs, sets, err := t.find()
	if err != nil {
		return nil, err
	}
	t.conn.AddTable(t.lay.table)
	// Rules go first: they hold on to chains, counters and sets.
	for _, c := range chains {
		t.conn.FlushChain(c)
	}
	for _, c := range chains {
		if !t.isBase(c) {
			t.conn.DelChain(c)
		}
	}
	if w.fresh {
		for _, o := range objs {
			t.conn.DeleteObject(o)
		}
	}
	lasting := make(map[string]*nftables.Set)
	for _, s := range t.lay.lasting(t.opt.Untracked) {
		lasting[s.Name] = s
	}
	prepared := make(map[string]bool)
	for _, i := range t.lay.intervals() {
		prepared[i.set.Name] = true
	}
	old := make(map[string]oldSet)
	for _, s := range sets {
		if s.Anonymous || prepared[s.Name] {
			continue // the anonymous went with their rules
		}
		want := lasting[s.Name]
		given := w.bans != nil && want != nil && !want.Dynamic
		if want != nil && !given && same(s, want) {
			old[s.Name] = oldSet{kept: true}
			continue
		}
		if want != nil && !given && !want.Dynamic && s.KeyType.GetNFTMagic() == want.KeyType.GetNFTMagic() {
			els, err := carry(s)
			if err != nil {
				return nil, err
			}
			old[s.Name] = oldSet{elements: els}
		}
		t.conn.DelSet(s)
	}
	return old, nil
}

// complete reports whether the bans of all sets are accounted for.
func (l *layout) complete(old map[string]oldSet) bool {
	for _, f := range l.families() {
		for _, s := range f.bans() {
			if _, there := old[s.Name]; !there {
				return false
			}
		}
	}
	return true
}

// find lists chains, counters and sets of the table. No table is no error.
func (t *Table) find() (chains []*nftables.Chain, objs []nftables.Obj, sets []*nftables.Set, err error) {
	all, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, c := range all {
		if c.Table.Name == tableName {
			chains = append(chains, c)
		}
	}
	if objs, err = t.conn.GetNamedObjects(t.lay.table); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, nil, err
	}
	if sets, err = t.conn.GetSets(t.lay.table); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, nil, err
	}
	return chains, objs, sets, nil
}

// carry reads a set's bans with what is left of their time.
func carry(s *nftables.Set) ([]nftables.SetElement, error) {
	var els []nftables.SetElement
	err := dump(s.Name, maxListed, func(e element) {
		els = append(els, nftables.SetElement{Key: e.key, Timeout: e.timeout()})
	})
	return els, err
}

// isEmpty reports whether a set that an earlier run has left holds nobody.
func isEmpty(s *nftables.Set) bool { return dump(s.Name, 1, func(element) {}) == nil }

// addSets queues every set that is not there yet.
func (t *Table) addSets(old map[string]oldSet, w wish) error {
	for _, s := range t.lay.lasting(t.opt.Untracked) {
		s.ID = 0
		t.filled[s] = t.filled[s] || w.fresh && old[s.Name].kept && !isEmpty(s)
		if old[s.Name].kept {
			continue
		}
		elements := old[s.Name].elements
		if w.bans != nil {
			elements = w.bans[s]
		}
		t.filled[s] = t.filled[s] || len(elements) > 0
		if err := t.conn.AddSet(s, elements); err != nil {
			return err
		}
	}
	peers4, peers6 := peerElements(slices.Collect(maps.Keys(t.peers)))
	t.lay.v4.peers.ID, t.lay.v6.peers.ID = 0, 0
	if err := t.conn.AddSet(t.lay.v4.peers, peers4); err != nil {
		return err
	}
	return t.conn.AddSet(t.lay.v6.peers, peers6)
}
