package plan

import "slices"

// byKind collects the actions as the walk finds them, in ascending order of path, one list for each kind.
type byKind [Remove + 1][]Action

func (k *byKind) add(a Action) { k[a.Kind] = append(k[a.Kind], a) }

// ordered joins the lists in the order in which the actions may run (final_filemap_cmp, filemap.c):
//
//   - creations first, so that a file's directory is there before the file; within them ascending by path, so that a
//     directory comes before what is in it;
//   - removals last, from the fear of losing what is still needed; descending by path, so that a directory is empty by
//     the time it is its turn;
//   - between the two no order matters to the result. Stock's is kept so that the debug output can be compared.
//
// Since the lists arrive sorted, nothing is sorted here. The lists are given up one by one, to be freed early.
func (k *byKind) ordered() []Action {
	n := 0
	for _, list := range k {
		n += len(list)
	}
	slices.Reverse(k[Remove])
	all := make([]Action, 0, n)
	for kind := range k {
		all = append(all, k[kind]...)
		k[kind] = nil
	}
	return all
}
