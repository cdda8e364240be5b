package full

import (
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// The options of nmap's OS detection: window scale, NOP, MSS, timestamp and SACK
// permitted in 20 bytes, or in the ECN probe without timestamps in 12.
const (
	osOptions  = 20
	ecnOptions = 12
)

// osProbe recognises those probes of nmap's OS detection that no stack sends, by
// flags, window and length of options (nmap's reference guide, "TCP/IP fingerprinting
// methods"): T2, T3, T5, T7 and the ECN probe.
func osProbe(h *detect.Header) bool {
	if h.Proto != decode.ProtoTCP {
		return false
	}
	const six = decode.FIN | decode.SYN | decode.RST | decode.PSH | decode.ACK | decode.URG
	flags := h.Flags & six
	if h.OptionsLen == ecnOptions {
		return flags == decode.SYN && h.Window == 3 && h.Urgent == 0xf7f5
	}
	if h.OptionsLen != osOptions {
		return false
	}
	switch h.Window {
	case 128:
		return flags == 0
	case 256:
		return flags == decode.SYN|decode.FIN|decode.URG|decode.PSH
	case 31337:
		return flags == decode.SYN
	case 65535:
		return flags == decode.FIN|decode.PSH|decode.URG
	}
	return false
}
