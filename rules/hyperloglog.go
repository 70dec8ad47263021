package rules

import (
	"math"
	"math/bits"
)

// hyperLogLog estimates how many different values a window saw, with a standard error
// of 3.25% (1.04/sqrt(1024); Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog", 2007).
// Each register keeps, instead of one rank, those that can still become the highest
// one when the window moves on: a rank goes when one as high was seen in its pane or
// a newer one (Chabchoub, Hébrail: "Sliding HyperLogLog", 2010). Panes that carry
// alike many values leave about two and a half ranks per register, 8 KB in all; the
// bound is one per register and pane, 35 KB.
type hyperLogLog struct {
	blocks [registers / blockOf][]uint16 // of 32 registers each: register, rank, pane; in no order
	size   int                           // bytes that the blocks have room for
	counts int                           // ranks kept

	estimate float64 // of all panes
	known    bool    // estimate is up to date
}

// sketchBytes is what one takes beside the room of its blocks.
const sketchBytes = 896

const (
	registerBits = 10
	registers    = 1 << registerBits
	blockOf      = 32
	maxRank      = 64 - registerBits - paneBits + 1 // of the bits that a packed member keeps

	// A pane is kept modulo 32, which is enough for the 17 that a window reaches into.
	paneBits = 5
	paneMask = 1<<paneBits - 1
)

// age is by how many panes one that is kept modulo 32 is older than head.
func age(head int64, pane uint64) int64 { return (head - int64(pane)) & paneMask }

// add notes a value by its hash. Expects head-panes <= pane <= head.
func (h *hyperLogLog) add(head, pane int64, hash uint64) {
	rank := min(bits.LeadingZeros64(hash<<registerBits)+1, maxRank)
	h.put(head, head-pane, int(hash>>(64-registerBits)), uint16(rank))
}

// put notes a rank of a register, seen in the pane that is old panes before head.
func (h *hyperLogLog) put(head, old int64, register int, rank uint16) {
	block := &h.blocks[register/blockOf]
	in, highest := uint16(register%blockOf), uint16(0)
	kept := (*block)[:0]
	for _, x := range *block {
		if x>>11 == in {
			r, o := x>>paneBits&63, age(head, uint64(x&paneMask))
			if r >= rank && o <= old {
				return // nothing was moved before: kept is the block so far
			}
			if r <= rank && o >= old {
				continue
			}
			highest = max(highest, r)
		}
		kept = append(kept, x)
	}
	h.counts += 1 + len(kept) - len(*block)
	h.size -= 2 * cap(*block)
	*block = append(kept, in<<11|rank<<paneBits|uint16((head-old)&paneMask))
	h.size += 2 * cap(*block)
	if rank > highest {
		h.known = false
	}
}

// purge forgets what is older than the window that ends in pane to, up to which the
// panes move from head.
func (h *hyperLogLog) purge(head, to int64) {
	h.counts, h.known = 0, false
	for i, block := range h.blocks {
		kept := block[:0]
		for _, x := range block {
			if age(head, uint64(x&paneMask))+to-head <= panes {
				kept = append(kept, x)
			}
		}
		h.blocks[i] = kept
		h.counts += len(kept)
	}
}

// each calls f with all ranks, in the order in which they are kept.
func (h *hyperLogLog) each(head int64, f func(register int, rank uint16, old int64)) {
	for i, block := range h.blocks {
		for _, x := range block {
			f(i*blockOf+int(x>>11), x>>paneBits&63, age(head, uint64(x&paneMask)))
		}
	}
}

// value is the estimate for the panes that are at most old before head.
func (h *hyperLogLog) value(head, old int64) float64 {
	if old < panes {
		return h.count(head, old)
	}
	if !h.known {
		h.estimate, h.known = h.count(head, old), true
	}
	return h.estimate
}

// count estimates from the highest rank of each register in the panes that are at
// most old before head (Ertl: "New cardinality estimation algorithms for HyperLogLog
// sketches", 2017, algorithm 6), which needs no correction for small or large counts.
func (h *hyperLogLog) count(head, old int64) float64 {
	var having [maxRank + 1]int // registers by their highest rank; 0: nothing seen
	for _, block := range h.blocks {
		var highest [blockOf]uint16
		for _, x := range block {
			if age(head, uint64(x&paneMask)) <= old {
				highest[x>>11] = max(highest[x>>11], x>>paneBits&63)
			}
		}
		for _, rank := range highest {
			having[rank]++
		}
	}
	z := registers * tau(1-float64(having[maxRank])/registers)
	for rank := maxRank - 1; rank > 0; rank-- {
		z = (z + float64(having[rank])) / 2
	}
	z += registers * sigma(float64(having[0])/registers)
	return registers * registers / (2 * math.Ln2 * z)
}

// sigma is what registers that saw nothing add: x + x^2 + 2x^4 + 4x^8 and so on.
func sigma(x float64) float64 {
	sum, weight := x, 1.0
	for before := math.Inf(-1); sum != before; weight *= 2 {
		x *= x
		before, sum = sum, sum+x*weight
	}
	return sum
}

// tau is what registers that are at the highest rank take.
func tau(x float64) float64 {
	sum, weight := 1-x, 1.0
	for before := math.Inf(1); sum != before; {
		x, weight = math.Sqrt(x), weight/2
		before, sum = sum, sum-(1-x)*(1-x)*weight
	}
	return sum / 3
}
