package config

import "strings"

// Suggest is the word among known that was probably meant, or "": the same in
// another case or with dashes, else the nearest within a third of its
// length, else the shortest that begins with it (2.x took keys by prefix).
func Suggest(word string, known []string) string {
	const longest = 32
	if word == "" || len(word) > longest {
		return ""
	}
	fold := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
	w := fold(word)
	best, near := "", max(1, len(w)/3)+1
	for _, k := range known {
		if d := distance(w, fold(k)); d < near {
			best, near = k, d
		}
	}
	if best != "" {
		return best
	}
	for _, k := range known {
		if strings.HasPrefix(fold(k), w) && (best == "" || len(k) < len(best)) {
			best = k
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance of a and b in bytes, no part
// being edited twice (optimal string alignment): insertions, deletions,
// substitutions and swaps of neighbours cost one each.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
