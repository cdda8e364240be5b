// Package command runs the administrator's commands (KILL_ROUTE, KILL_RUN_CMD
// and their undoing) and asks for hosts.deny lines, away from the packet path.
// The Client sits in the daemon: Orders in, Actions out. Serve sits in the
// helper process (internal/proc), which alone may start programs: it has the
// templates from the configuration it read itself, and takes from the daemon
// nothing but numbers and addresses.
package command

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// request asks the helper for one step about one host.
//
// On the wire it is requestSize bytes, big-endian, with no byte to spare, so that
// every request has one encoding and every accepted record is that of a request:
//
//	0  id        8
//	8  step      1  respond.Step, one of the helper's
//	9  family    1  4 or 6
//	10 address  16  IPv4: the first four, the rest zero
//	26 port      2
//	28 flags     2  TCP flags
//	30 count     4
//	34 protocol  1  IANA; 0 when no longer known (undoing)
//	35 mode      1  config.Mode, that of the protocol
//	36 dialect   1  config.Dialect, whose word for the mode is meant
//	37 kind      1  detect.Kind
//	38 evidence  1  judge.Evidence
type request struct {
	id       uint64
	step     respond.Step
	host     netip.Addr
	port     uint16
	flags    uint16
	count    uint32
	proto    uint8
	mode     config.Mode
	dialect  config.Dialect
	kind     detect.Kind
	evidence judge.Evidence
}

const requestSize = 39

func (r *request) encode() (b [requestSize]byte) {
	binary.BigEndian.PutUint64(b[0:], r.id)
	b[8] = byte(r.step)
	if r.host.Is4() {
		b[9] = 4
	} else {
		b[9] = 6
	}
	copy(b[10:26], r.host.AsSlice())
	binary.BigEndian.PutUint16(b[26:], r.port)
	binary.BigEndian.PutUint16(b[28:], r.flags)
	binary.BigEndian.PutUint32(b[30:], r.count)
	b[34], b[35], b[36], b[37], b[38] = r.proto, byte(r.mode), byte(r.dialect), byte(r.kind), byte(r.evidence)
	return b
}

// reloadSize is the size of a record that has an id and nothing else: it asks the
// helper to read its configuration again.
const reloadSize = 8

func encodeReload(id uint64) (b [reloadSize]byte) {
	binary.BigEndian.PutUint64(b[:], id)
	return b
}

// errRecord is why a record was refused. It quotes nothing of the record.
var errRecord = errors.New("malformed record")

// decodeRequest checks every field: the helper is root, and believes nothing.
// The id is right whenever the size is, so that the sender can be told.
func decodeRequest(b []byte) (r request, err error) {
	if len(b) != requestSize {
		return r, fmt.Errorf("%w: wrong size", errRecord)
	}
	r.id = binary.BigEndian.Uint64(b[0:])
	r.step = respond.Step(b[8])
	r.port = binary.BigEndian.Uint16(b[26:])
	r.flags = binary.BigEndian.Uint16(b[28:])
	r.count = binary.BigEndian.Uint32(b[30:])
	r.proto, r.mode, r.dialect = b[34], config.Mode(b[35]), config.Dialect(b[36])
	r.kind, r.evidence = detect.Kind(b[37]), judge.Evidence(b[38])
	switch addr := [16]byte(b[10:26]); b[9] {
	case 4:
		r.host = netip.AddrFrom4([4]byte(addr[:4]))
		if [12]byte(addr[4:]) != [12]byte{} {
			return r, fmt.Errorf("%w: bytes behind an IPv4 address", errRecord)
		}
	case 6:
		r.host = netip.AddrFrom16(addr)
	default:
		return r, fmt.Errorf("%w: address family", errRecord)
	}
	return r, r.check()
}

// check is true of every request that may be carried out.
func (r *request) check() error {
	bad := ""
	switch {
	case !helpersStep(r.step):
		bad = "step"
	case !r.host.IsValid() || r.host.Is4In6() || r.host.Zone() != "":
		bad = "address"
	case r.host.IsUnspecified() || r.host.IsMulticast() || r.host.IsLoopback():
		bad = "no address of another host"
	case r.flags > decode.AE<<1-1:
		bad = "flags"
	case r.proto != 0 && r.proto != decode.ProtoTCP && r.proto != decode.ProtoUDP:
		bad = "protocol"
	case r.mode > config.Advanced, r.proto == 0 && r.mode != config.Unwatched:
		bad = "mode"
	case r.dialect > config.Dialect1x:
		bad = "dialect"
	case r.kind > detect.KindConnect:
		bad = "kind"
	case r.evidence > judge.E3:
		bad = "evidence"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", errRecord, bad)
}

func helpersStep(s respond.Step) bool {
	switch s {
	case respond.StepRoute, respond.StepHostsDeny, respond.StepCommand,
		respond.StepRouteUndo, respond.StepHostsDenyUndo, respond.StepCommandUndo:
		return true
	}
	return false
}

// Sizes of the texts in a reply, bytes.
const (
	textSize   = 1024 // the command as run, or the line; COMPAT's longest line
	detailSize = 512  // the end of what the command wrote to its standard error
	replySize  = 8 + 1 + 4 + 8 + 4 + 2 + 2 + textSize + detailSize
)

// reply says what came of a request.
//
//	0  id       8
//	8  status   1
//	9  code     4  exit status or signal number
//	13 took     8  nanoseconds
//	21 refused  4  malformed records so far
//	25 lengths  2+2
//	29 text     textSize, then detail, detailSize; what is not used is zero
type reply struct {
	id      uint64
	status  Status
	code    int32
	took    time.Duration
	refused uint32
	text    string
	detail  string
}

func (r *reply) encode() (b [replySize]byte) {
	binary.BigEndian.PutUint64(b[0:], r.id)
	b[8] = byte(r.status)
	binary.BigEndian.PutUint32(b[9:], uint32(r.code))
	binary.BigEndian.PutUint64(b[13:], uint64(r.took))
	binary.BigEndian.PutUint32(b[21:], r.refused)
	n := copy(b[29:29+textSize], r.text)
	if n < len(r.text) {
		copy(b[29+textSize-3:], "...")
	}
	m := copy(b[29+textSize:], r.detail)
	binary.BigEndian.PutUint16(b[25:], uint16(n))
	binary.BigEndian.PutUint16(b[27:], uint16(m))
	return b
}

func decodeReply(b []byte) (r reply, err error) {
	if len(b) != replySize {
		return r, fmt.Errorf("%w: wrong size", errRecord)
	}
	n, m := int(binary.BigEndian.Uint16(b[25:])), int(binary.BigEndian.Uint16(b[27:]))
	r = reply{
		id:      binary.BigEndian.Uint64(b[0:]),
		status:  Status(b[8]),
		code:    int32(binary.BigEndian.Uint32(b[9:])),
		took:    time.Duration(binary.BigEndian.Uint64(b[13:])),
		refused: binary.BigEndian.Uint32(b[21:]),
	}
	switch {
	case r.status > lastStatus:
		return r, fmt.Errorf("%w: status", errRecord)
	case r.took < 0:
		return r, fmt.Errorf("%w: duration", errRecord)
	case n > textSize || m > detailSize:
		return r, fmt.Errorf("%w: length of a text", errRecord)
	}
	r.text = printable(b[29 : 29+n])
	r.detail = printable(b[29+textSize : 29+textSize+m])
	return r, nil
}
