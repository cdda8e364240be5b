package view

import (
	"net/netip"
	"time"
)

// Order is what a person asks for with `portsentry ban`.
type Order struct {
	Prefix netip.Prefix
	Length time.Duration // 0: BAN_TIME
	Reason string
	Force  bool          // also who is spared or connected, or asks himself (root alone)
	Within time.Duration // taken back unless confirmed by then; 0: it stands
}

// Lifting is what a person asks for with `portsentry unban`.
type Lifting struct {
	Prefix netip.Prefix // every ban inside it, and the one it lies in; invalid: all there are (root alone)
	Within time.Duration
}

// Changed is the answer to a change.
type Changed struct {
	Bans   []Ban `json:"bans"`   // that began, or that stand with another length
	Lifted []Ban `json:"lifted"` // that ended
	// Pending is the number by which the change is confirmed, by Confirm at the
	// latest; 0: it stands.
	Pending uint64     `json:"pending,omitempty"`
	Confirm *time.Time `json:"confirm_by,omitempty"`
	Text    string     `json:"text"` // what was done, in words
}
