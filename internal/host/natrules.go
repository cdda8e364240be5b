package host

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// ownTableName is that of the nftables table that portsentry bans with; its
// family is inet.
const ownTableName = "portsentry"

func ownTable(family uint8, name []byte) bool {
	return family == unix.NFPROTO_INET && string(trimNUL(name)) == ownTableName
}

// dumpRules lists the rules of nftables, all tables of all families, until one
// is found that hands packets to somebody else, and says which.
func dumpRules() (why string, err error) {
	c, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	req := newRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, nfgenSize)
	err = c.search(req, func(_ uint16, rule []byte) bool {
		why = diversion(rule)
		return why == ""
	})
	// EINVAL is how nfnetlink says that it has no such part, so no rules.
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	return why, err
}

// diversion names the rule, the body of an NFT_MSG_NEWRULE, and what it does if
// it hands packets to somebody else; "" if not, or if it is ours.
func diversion(rule []byte) string {
	if len(rule) < nfgenSize {
		return ""
	}
	var table, chain []byte
	var does string
	for k, v, rest, ok := nextAttribute(rule[nfgenSize:]); ok; k, v, rest, ok = nextAttribute(rest) {
		switch k {
		case unix.NFTA_RULE_TABLE:
			table = v
		case unix.NFTA_RULE_CHAIN:
			chain = v
		case unix.NFTA_RULE_EXPRESSIONS:
			does = diverts(v)
		}
	}
	if does == "" || ownTable(rule[0], table) {
		return ""
	}
	var b strings.Builder
	b.WriteString("nftables rule in table ")
	b.WriteString(familyName(rule[0]))
	b.WriteString(printable(string(trimNUL(table))))
	b.WriteString(", chain ")
	b.WriteString(printable(string(trimNUL(chain))))
	b.WriteString(": ")
	b.WriteString(does)
	return b.String()
}

func familyName(family uint8) string {
	switch family {
	case unix.NFPROTO_IPV4:
		return "ip "
	case unix.NFPROTO_IPV6:
		return "ip6 "
	case unix.NFPROTO_INET:
		return "inet "
	case unix.NFPROTO_NETDEV:
		return "netdev "
	case unix.NFPROTO_BRIDGE:
		return "bridge "
	}
	return ""
}

// diverts says which of the expressions of a rule, NFTA_RULE_EXPRESSIONS, hands
// packets to somebody else; "" for none.
func diverts(exprs []byte) string {
	for k, e, rest, ok := nextAttribute(exprs); ok; k, e, rest, ok = nextAttribute(rest) {
		if k != unix.NFTA_LIST_ELEM {
			continue
		}
		data := attribute(e, unix.NFTA_EXPR_DATA)
		switch string(trimNUL(attribute(e, unix.NFTA_EXPR_NAME))) {
		case "nat":
			if be32(attribute(data, unix.NFTA_NAT_TYPE)) == unix.NFT_NAT_DNAT {
				return "dnat"
			}
		case "redir":
			return "redirect"
		case "tproxy":
			return "tproxy"
		case "target": // of iptables, by way of nft_compat
			if name := trimNUL(attribute(data, unix.NFTA_TARGET_NAME)); divertingTarget(name) {
				return string(name)
			}
		case "payload":
			if setsDestination(data) {
				return "destination set without connection tracking"
			}
		}
	}
	return ""
}

// divertingTarget knows the targets of iptables that hand packets to somebody
// else. DNPT is the stateless one of RFC 6296.
func divertingTarget(name []byte) bool {
	switch string(name) {
	case "DNAT", "REDIRECT", "TPROXY", "NETMAP", "DNPT":
		return true
	}
	return false
}

// setsDestination reports whether a payload expression writes into the
// destination address of IPv4 or IPv6 or the destination port of TCP or UDP.
func setsDestination(payload []byte) bool {
	if attribute(payload, unix.NFTA_PAYLOAD_SREG) == nil {
		return false // it reads
	}
	offset, size := be32(attribute(payload, unix.NFTA_PAYLOAD_OFFSET)), be32(attribute(payload, unix.NFTA_PAYLOAD_LEN))
	switch be32(attribute(payload, unix.NFTA_PAYLOAD_BASE)) {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		// The IPv4 one lies within the IPv6 source, which is set from 8 on.
		return offset >= 16 && offset < 20 && size <= 4 || offset >= 24 && offset < 40
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		return offset < 4 && offset+size > 2
	}
	return false
}

// attribute is the value of the first attribute of a kind, nil if there is none.
func attribute(b []byte, kind uint16) []byte {
	for k, v, rest, ok := nextAttribute(b); ok; k, v, rest, ok = nextAttribute(rest) {
		if k == kind {
			return v
		}
	}
	return nil
}

func trimNUL(b []byte) []byte {
	name, _, _ := bytes.Cut(b, []byte{0})
	return name
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
