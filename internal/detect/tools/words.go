package tools

import (
	"math"
	"math/bits"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// field is a number in a header.
type field uint8

const (
	fieldWindow field = iota
	fieldSport
	fieldDport
	fieldSeq
	fieldAck
	fieldUrgent
	fieldMSS
	fieldOptions
	fieldPayload
	fieldIPID
	fieldTTL
	fieldType
)

// of is the value of the field in h.
func (f field) of(h *detect.Header) uint32 {
	switch f {
	case fieldWindow:
		return uint32(h.Window)
	case fieldSport:
		return uint32(h.SrcPort)
	case fieldDport:
		return uint32(h.DstPort)
	case fieldSeq:
		return h.Seq
	case fieldAck:
		return h.Ack
	case fieldUrgent:
		return uint32(h.Urgent)
	case fieldMSS:
		return uint32(h.MSS)
	case fieldOptions:
		return uint32(h.OptionsLen)
	case fieldPayload:
		return uint32(max(0, h.PayloadLen))
	case fieldIPID:
		return h.IPID
	case fieldTTL:
		return uint32(h.TTL)
	}
	return uint32(h.ICMPType)
}

// protocols are sets of IP protocols.
type protocols uint8

const (
	onTCP protocols = 1 << iota
	onUDP
	onICMP
	onPorts = onTCP | onUDP
	onAny   = onPorts | onICMP
)

// The words of the file. They are made anew for each Parse, as a package has no
// state.
type words struct {
	protocols map[string]protocol
	fields    map[string]numbers
	flags     map[string]uint16
	relations map[string]relation
	runs      map[string]run
}

type protocol struct {
	number uint8
	set    protocols
}

// numbers is what a field may be asked for.
type numbers struct {
	field field
	most  uint32
	on    protocols
	only4 bool
}

// relation is one of within and across.
type relation struct {
	within func(now *detect.Header) bool
	across func(before, now *detect.Header) bool
	on     protocols
	only4  bool
}

type run struct {
	of     func(*detect.Header) uint32
	on     protocols
	only4  bool
	unkept bool // reads what is not kept of an earlier packet
}

func vocabulary() words {
	return words{
		protocols: map[string]protocol{
			"tcp":  {decode.ProtoTCP, onTCP},
			"udp":  {decode.ProtoUDP, onUDP},
			"icmp": {decode.ProtoICMP, onICMP},
		},
		fields: map[string]numbers{
			"window":  {field: fieldWindow, most: math.MaxUint16, on: onTCP},
			"sport":   {field: fieldSport, most: math.MaxUint16, on: onPorts},
			"dport":   {field: fieldDport, most: math.MaxUint16, on: onPorts},
			"seq":     {field: fieldSeq, most: math.MaxUint32, on: onTCP},
			"ack":     {field: fieldAck, most: math.MaxUint32, on: onTCP},
			"urgent":  {field: fieldUrgent, most: math.MaxUint16, on: onTCP},
			"mss":     {field: fieldMSS, most: math.MaxUint16, on: onTCP},
			"options": {field: fieldOptions, most: 40, on: onTCP},
			"payload": {field: fieldPayload, most: math.MaxUint16, on: onAny},
			"ipid":    {field: fieldIPID, most: math.MaxUint16, on: onAny, only4: true},
			"ttl":     {field: fieldTTL, most: math.MaxUint8, on: onAny},
			"type":    {field: fieldType, most: math.MaxUint8, on: onICMP},
		},
		flags: map[string]uint16{
			"none": 0, "fin": decode.FIN, "syn": decode.SYN, "rst": decode.RST, "psh": decode.PSH, "ack": decode.ACK,
			"urg": decode.URG, "ece": decode.ECE, "cwr": decode.CWR, "ae": decode.AE,
		},
		relations: map[string]relation{
			"ipid=low16(dst^dport^seq)": {on: onTCP, only4: true, within: func(now *detect.Header) bool {
				return now.IPID == (address4(now)^uint32(now.DstPort)^now.Seq)&0xffff
			}},
			"seq=dst": {on: onTCP, only4: true, within: func(now *detect.Header) bool { return now.Seq == address4(now) }},
			"seq=before": {on: onTCP, across: func(before, now *detect.Header) bool {
				return now.Seq == before.Seq
			}},
			"seq=before+1..4096": {on: onTCP, across: func(before, now *detect.Header) bool {
				return now.Seq-before.Seq-1 < 4096 // modulo 2^32
			}},
			"sport=before+1..16": {on: onPorts, across: func(before, now *detect.Header) bool {
				return now.SrcPort-before.SrcPort-1 < 16 // modulo 2^16
			}},
		},
		runs: map[string]run{
			"hi16(seq)^lo16(seq)": {on: onTCP, of: func(h *detect.Header) uint32 { return h.Seq>>16 ^ h.Seq&0xffff }},
			"hi16(ack)^lo16(ack)": {on: onTCP, unkept: true, of: func(h *detect.Header) uint32 { return h.Ack>>16 ^ h.Ack&0xffff }},
			"hi16(seq),sport":     {on: onTCP, of: func(h *detect.Header) uint32 { return h.Seq&0xffff0000 | uint32(h.SrcPort) }},
			"seq":                 {on: onTCP, of: func(h *detect.Header) uint32 { return h.Seq }},
			"sport":               {on: onPorts, of: func(h *detect.Header) uint32 { return uint32(h.SrcPort) }},
			"seq^dst^(dport<<16+sport)": {on: onTCP, only4: true, of: func(h *detect.Header) uint32 {
				return h.Seq ^ address4(h) ^ ports(h)
			}},
			"seq^swap(dst)^(dport<<16+sport)": {on: onTCP, only4: true, of: func(h *detect.Header) uint32 {
				return h.Seq ^ bits.ReverseBytes32(address4(h)) ^ ports(h)
			}},
		},
	}
}

func ports(h *detect.Header) uint32 { return uint32(h.DstPort)<<16 | uint32(h.SrcPort) }
