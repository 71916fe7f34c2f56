package changelog

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names below the changelogs directory.
const (
	liveName     = "CHANGELOG"     // the changelog being written
	nextName     = "CHANGELOG.new" // its successor, for the moment of a rollover
	htimeDir     = "htime"         // the indexes
	sealedPrefix = "CHANGELOG."    // of a sealed changelog, then its stamp
	emptyPrefix  = "changelog."    // in an index: the slice had no record, there is no file
)

// dayDir is the directory, below the changelogs directory, of the changelog with
// the given stamp: its UTC date as YYYY/MM/DD.
func dayDir(stamp int64) string {
	return time.Unix(stamp, 0).UTC().Format("2006/01/02")
}

// sealedName is the path of a sealed changelog below the changelogs directory.
func sealedName(stamp int64) string {
	return path.Join(dayDir(stamp), sealedPrefix+strconv.FormatInt(stamp, 10))
}

// parseSealedBase reads the stamp of a changelog's base name; empty says that
// the name is that of a slice without records, which has no file.
func parseSealedBase(base string) (stamp int64, empty, ok bool) {
	digits, found := strings.CutPrefix(base, sealedPrefix)
	if !found {
		digits, empty = strings.CutPrefix(base, emptyPrefix)
		if !empty {
			return 0, false, false
		}
	}
	stamp, ok = parseStamp(digits)
	return stamp, empty, ok
}

// parseStamp reads unix seconds as names have them: digits only.
func parseStamp(digits string) (int64, bool) {
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}

// sealedAfter lists the stamps of the sealed changelogs in dir that are later
// than after, in order: those in day directories, and those that releases of
// GlusterFS from before the day directories put into dir itself.
func sealedAfter(dir string, after int64) ([]int64, error) {
	var stamps []int64
	from := dayDir(after)
	top, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	stamps = appendSealed(stamps, top, after)
	for _, year := range subdirs(top, from[:4]) {
		months, err := os.ReadDir(path.Join(dir, year))
		if err != nil {
			return nil, err
		}
		for _, month := range subdirs(months, "") {
			days, err := os.ReadDir(path.Join(dir, year, month))
			if err != nil {
				return nil, err
			}
			for _, day := range subdirs(days, "") {
				rel := path.Join(year, month, day)
				if rel < from {
					continue
				}
				files, err := os.ReadDir(path.Join(dir, rel))
				if err != nil {
					return nil, err
				}
				stamps = appendSealed(stamps, files, after)
			}
		}
	}
	slices.Sort(stamps)
	return slices.Compact(stamps), nil
}

func appendSealed(stamps []int64, entries []os.DirEntry, after int64) []int64 {
	for _, e := range entries {
		stamp, empty, ok := parseSealedBase(e.Name())
		if ok && !empty && stamp > after && e.Type().IsRegular() {
			stamps = append(stamps, stamp)
		}
	}
	return stamps
}

// subdirs are the directories among entries whose names are numbers, from the
// given one on.
func subdirs(entries []os.DirEntry, from string) []string {
	var names []string
	for _, e := range entries {
		if _, ok := parseStamp(e.Name()); ok && e.IsDir() && e.Name() >= from {
			names = append(names, e.Name())
		}
	}
	return names
}
