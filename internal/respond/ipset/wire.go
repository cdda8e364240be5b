package ipset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// The protocol of linux/netfilter/ipset/ip_set.h, version 6, which every kernel
// with ip_set speaks. Numbers are big endian, and say so in their type.
const (
	protocol = 6

	cmdCreate = 2
	cmdList   = 7
	cmdAdd    = 9
	cmdDel    = 10
	cmdTest   = 11

	attrProtocol = 1
	attrSetName  = 2
	attrTypeName = 3
	attrRevision = 4
	attrFamily   = 5
	attrFlags    = 6
	attrData     = 7
	attrADT      = 8

	// In attrData, of a set:
	attrMaxElem    = 19
	attrElements   = 24
	attrReferences = 25
	// of an element:
	attrIP   = 1
	attrCIDR = 3
	// and of both, seconds:
	attrTimeout = 6

	attrIPv4, attrIPv6 = 1, 2 // in attrIP

	flagListHeader = 1 << 2
)

// hashNet is the kind of set that we make: it holds addresses and ranges, and of those
// that overlap each for its own time.
const hashNet = "hash:net"

// Errors of its own that the kernel gives in place of an errno.
const (
	errNoType = unix.Errno(4098)
	errExist  = unix.Errno(4103)
	errFull   = unix.Errno(4352) // of the hash types
)

// maxListed bounds what is read of one set.
const maxListed = 2 * size

// ErrTooMany says that a set holds more than is read. What was not read is in
// force all the same and ends by itself.
var ErrTooMany = errors.New("the set holds more bans than are listed")

// request asks one thing about the set name and gives the answers.
func (s *Sets) request(ctx context.Context, cmd uint8, flags netlink.HeaderFlags, name string, more func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Uint8(attrProtocol, protocol)
	ae.String(attrSetName, name)
	more(ae)
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	if err := s.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return nil, err
	}
	return s.conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_IPSET<<8 | netlink.HeaderType(cmd),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0}, attrs...), // struct nfgenmsg
	})
}

// create makes f, or finds that it is there and can be used.
func (s *Sets) create(f *set) error {
	_, err := s.request(context.Background(), cmdCreate, netlink.Create, f.name, func(ae *netlink.AttributeEncoder) {
		ae.String(attrTypeName, hashNet)
		ae.Uint8(attrRevision, 0) // what we need is in the oldest
		ae.Uint8(attrFamily, f.family)
		ae.Nested(attrData, func(ae *netlink.AttributeEncoder) error {
			ae.Uint32(attrMaxElem|netlink.NetByteOrder, size)
			ae.Uint32(attrTimeout|netlink.NetByteOrder, 0) // each element has its own
			return nil
		})
	})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	h, err := s.header(f.name)
	if err != nil {
		return err
	}
	f.nets = h.kind == hashNet
	if !h.times || h.family != f.family || !f.nets && (h.kind != "hash:ip" || f == &s.v6) {
		return fmt.Errorf("%w: %s", ErrForeign, h.kind)
	}
	return nil
}

// element puts the address of b into its set or takes it out.
func (s *Sets) element(ctx context.Context, cmd uint8, flags netlink.HeaderFlags, b *respond.Ban) error {
	p, f := b.Prefix.Masked(), s.of(b.Prefix)
	_, err := s.request(ctx, cmd, flags, f.name, func(ae *netlink.AttributeEncoder) {
		ae.Nested(attrData, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(attrIP, func(ae *netlink.AttributeEncoder) error {
				kind := uint16(attrIPv6)
				if p.Addr().Is4() {
					kind = attrIPv4
				}
				ae.Bytes(kind|netlink.NetByteOrder, p.Addr().AsSlice())
				return nil
			})
			if !p.IsSingleIP() {
				ae.Uint8(attrCIDR, uint8(p.Bits()))
			}
			if cmd == cmdAdd {
				ae.Uint32(attrTimeout|netlink.NetByteOrder, seconds(time.Until(b.Until)))
			}
			return nil
		})
	})
	if errors.Is(err, errFull) {
		return ErrFull
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: the set is gone, did somebody destroy it? Restart portsentry", err)
	}
	return err
}

// seconds is d for the kernel, never less; 0 would be for ever.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d+time.Second-1, time.Second), maxTimeout) / time.Second)
}

// header is what the kernel says about a set, without its elements.
type header struct {
	kind       string
	family     uint8
	times      bool // elements can have a timeout
	elements   uint32
	references uint32 // by rules
}

func (s *Sets) header(name string) (h header, err error) {
	msgs, err := s.request(context.Background(), cmdList, netlink.Dump, name, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(attrFlags|netlink.NetByteOrder, flagListHeader)
	})
	if err != nil {
		return h, err
	}
	for _, m := range msgs {
		if err := h.decode(m.Data); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h *header) decode(b []byte) error {
	ad, err := decoder(b)
	if err != nil {
		return err
	}
	for ad.Next() {
		switch ad.Type() {
		case attrTypeName:
			h.kind = ad.String()
		case attrFamily:
			h.family = ad.Uint8()
		case attrData:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case attrTimeout:
						h.times = true
					case attrElements:
						h.elements = ad.Uint32()
					case attrReferences:
						h.references = ad.Uint32()
					}
				}
				return nil
			})
		}
	}
	return ad.Err()
}

// Existing gives the bans that the sets hold, with Prefix, Scope, Strength and
// Until. They may come from an earlier run. With ErrTooMany the answer is a part.
func (s *Sets) Existing(ctx context.Context) ([]respond.Ban, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var bans []respond.Ban
	var partial error
	for _, f := range []*set{&s.v4, &s.v6} {
		h, err := s.header(f.name)
		if err == nil && h.elements > maxListed {
			partial = fmt.Errorf("ipset: %s: %w", f.name, ErrTooMany)
			continue
		}
		if err == nil {
			bans, err = s.list(ctx, f, bans)
		}
		if err != nil {
			return bans, fmt.Errorf("ipset: %s: %w", f.name, err)
		}
	}
	return bans, partial
}

func (s *Sets) list(ctx context.Context, f *set, bans []respond.Ban) ([]respond.Ban, error) {
	msgs, err := s.request(ctx, cmdList, netlink.Dump, f.name, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return bans, err
	}
	now := time.Now()
	for _, m := range msgs {
		if bans, err = appendElements(bans, m.Data, now); err != nil {
			return bans, err
		}
	}
	return bans, nil
}

// appendElements reads one message of a list. Elements without a time are the
// owner's own, and stay his.
func appendElements(bans []respond.Ban, b []byte, now time.Time) ([]respond.Ban, error) {
	ad, err := decoder(b)
	if err != nil {
		return bans, err
	}
	for ad.Next() {
		if ad.Type() != attrADT {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				if ad.Type() != attrData {
					continue
				}
				ad.Nested(func(ad *netlink.AttributeDecoder) error {
					if p, left := element(ad); p.IsValid() && left > 0 {
						bans = append(bans, respond.Ban{
							Prefix: p, Scope: judge.AllProtocols, Strength: judge.Soft, Until: now.Add(left),
						})
					}
					return nil
				})
			}
			return nil
		})
	}
	return bans, ad.Err()
}

// element reads one element. left is 0 when it is there for ever.
func element(ad *netlink.AttributeDecoder) (p netip.Prefix, left time.Duration) {
	var a netip.Addr
	bits := -1
	for ad.Next() {
		switch ad.Type() {
		case attrIP:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					a, _ = netip.AddrFromSlice(ad.Bytes())
				}
				return nil
			})
		case attrCIDR:
			bits = int(ad.Uint8())
		case attrTimeout:
			left = time.Duration(ad.Uint32()) * time.Second
		}
	}
	if bits < 0 {
		bits = a.BitLen()
	}
	return netip.PrefixFrom(a, bits), left
}

// decoder reads the attributes behind struct nfgenmsg.
func decoder(b []byte) (*netlink.AttributeDecoder, error) {
	if len(b) < 4 {
		return nil, unix.EBADMSG
	}
	ad, err := netlink.NewAttributeDecoder(b[4:])
	if err == nil {
		ad.ByteOrder = binary.BigEndian
	}
	return ad, err
}
