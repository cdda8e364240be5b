package decode

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// sum adds b, as 16-bit words, to the ones' complement sum acc (RFC 1071). It adds 8
// bytes at a time, the first one lowest: ones' complement addition minds neither the
// width, so long as every carry comes round again, nor the byte order, so long as it
// is the same for all (swapped adds a number of the usual order).
func sum(b []byte, acc uint64) uint64 {
	var c uint64
	for len(b) >= 64 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	var tail uint64 // at most 4 + 2 + 1 bytes: cannot overflow
	if len(b) >= 4 {
		tail = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		tail += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		tail += uint64(b[0])
	}
	acc, c = bits.Add64(acc, tail, c)
	acc, c = bits.Add64(acc, 0, c)
	return acc + c
}

// swapped is a number in the byte order of sum.
func swapped(n uint64) uint64 { return bits.ReverseBytes64(n) }

// sumOK reports whether acc, the sum over everything with its checksum, is what
// it is when nothing was damaged.
func sumOK(acc uint64) bool {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return acc == 0xffff
}

// crcZero stands for the checksum field while an SCTP checksum is computed.
var crcZero [4]byte

// sctpOK reports whether the CRC32c of an SCTP packet is right (RFC 9260
// appendix A). The caller has seen to it that the common header is there.
func sctpOK(b []byte) bool {
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Update(0, table, b[:8])
	crc = crc32.Update(crc, table, crcZero[:])
	crc = crc32.Update(crc, table, b[12:])
	return crc == binary.LittleEndian.Uint32(b[8:])
}
