package undo

import (
	"cmp"
	"slices"

	"github.com/fastrewind/fastrewind/internal/plan"
)

// clip leaves of the ascending, disjoint spans what lies below size.
func clip(spans []plan.Span, size int64) []plan.Span {
	for i, s := range spans {
		switch {
		case s.Offset >= size:
			return spans[:i:i]
		case s.Offset+s.Length > size:
			out := slices.Clone(spans[:i+1])
			out[i].Length = size - s.Offset
			return out
		}
	}
	return spans
}

// subtract gives what of a is not in b, both ascending and disjoint. The result shares nothing with them.
func subtract(a, b []plan.Span) []plan.Span {
	var out []plan.Span
	for _, s := range a {
		for len(b) > 0 && b[0].Offset+b[0].Length <= s.Offset {
			b = b[1:]
		}
		for _, t := range b {
			if t.Offset >= s.Offset+s.Length {
				break
			}
			if t.Offset > s.Offset {
				out = append(out, plan.Span{Offset: s.Offset, Length: t.Offset - s.Offset})
			}
			end := s.Offset + s.Length
			s.Offset = min(t.Offset+t.Length, end)
			s.Length = end - s.Offset
		}
		if s.Length > 0 {
			out = append(out, s)
		}
	}
	return out
}

// merge gives what is in a or in b, ascending, disjoint, adjacent ones joined. It may reuse a.
func merge(a, b []plan.Span) []plan.Span {
	if len(b) == 0 {
		return a
	}
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y plan.Span) int { return cmp.Compare(x.Offset, y.Offset) })
	out := all[:1]
	for _, s := range all[1:] {
		last := &out[len(out)-1]
		if s.Offset <= last.Offset+last.Length {
			last.Length = max(last.Length, s.Offset+s.Length-last.Offset)
			continue
		}
		out = append(out, s)
	}
	return out
}

func total(spans []plan.Span) (n int64) {
	for _, s := range spans {
		n += s.Length
	}
	return n
}
