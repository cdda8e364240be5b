package nft

import (
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rebuild makes the table what the options say, in one transaction that the
// kernel refuses (ERESTART) if another program changed the ruleset since we
// looked, as container run-times and firewalld do.
func (t *Table) rebuild() error {
	var err error
	for range 10 {
		if err = t.tryRebuild(); !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return err
}

func (t *Table) tryRebuild() error {
	gen, err := t.conn.GetGen()
	if err != nil {
		return err
	}
	sets, err := t.clear()
	if err != nil {
		return err
	}
	if err := t.addSets(sets); err != nil {
		return err
	}
	for _, name := range []string{droppedFull, droppedSoft, droppedLimited, trapHits, overflow} {
		t.conn.AddObj(&nftables.NamedObj{Table: t.lay.table, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	if err := t.rulesPre(); err != nil {
		return err
	}
	trap := t.conn.AddChain(t.lay.baseChain("trap", nftables.ChainHookInput))
	if err := t.rulesTrap(trap); err != nil {
		return err
	}
	t.rulesHits(trap)
	return t.conn.FlushWithGenID(gen.ID)
}

// oldSet is what becomes of a lasting set.
type oldSet struct {
	kept     bool                  // it is as we would make it, and stays with its elements
	elements []nftables.SetElement // otherwise: what is left of its bans
}

// clear queues the table itself and the removal of all that an earlier run
// left in it, but for the sets that may stay. Other names than ours go too.
func (t *Table) clear() (map[string]oldSet, error) {
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
		t.conn.DelChain(c)
	}
	for _, o := range objs {
		t.conn.DeleteObject(o)
	}
	lasting := make(map[string]*nftables.Set)
	for _, s := range t.lay.lasting() {
		lasting[s.Name] = s
	}
	old := make(map[string]oldSet)
	for _, s := range sets {
		if s.Anonymous {
			continue // went with its rule
		}
		want := lasting[s.Name]
		if want != nil && same(s, want) {
			old[s.Name] = oldSet{kept: true}
			continue
		}
		if want != nil && !want.Dynamic && s.KeyType.GetNFTMagic() == want.KeyType.GetNFTMagic() {
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

// addSets queues every set that is not there yet.
func (t *Table) addSets(old map[string]oldSet) error {
	for _, s := range t.lay.lasting() {
		s.ID = 0
		if old[s.Name].kept {
			continue
		}
		if err := t.conn.AddSet(s, old[s.Name].elements); err != nil {
			return err
		}
	}
	spare4, spare6, err := spareElements(t.opt.Spare)
	if err != nil {
		return err
	}
	peers4, peers6 := peerElements(t.opt.Peers)
	odd := less(t.opt.TrapsTCP, t.opt.EphemeralFirst, t.opt.EphemeralLast)
	for _, s := range []struct {
		set      *nftables.Set
		elements []nftables.SetElement
	}{
		{t.lay.v4.spare, spare4}, {t.lay.v6.spare, spare6},
		{t.lay.v4.peers, peers4}, {t.lay.v6.peers, peers6},
		{t.lay.trapsTCP, portElements(t.opt.TrapsTCP)},
		{t.lay.trapsFIN, portElements(odd)},
		{t.lay.trapsUDP, portElements(less(t.opt.TrapsUDP, t.opt.EphemeralFirst, t.opt.EphemeralLast))},
	} {
		s.set.ID = 0 // one of this transaction
		if err := t.conn.AddSet(s.set, s.elements); err != nil {
			return err
		}
	}
	return nil
}
