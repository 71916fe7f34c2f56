package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// WriteMarkdown writes reports as a Markdown file, and their pictures beside it as
// SVG files that it shows.
func WriteMarkdown(path string, how string, reports ...*Report) error {
	var b strings.Builder
	b.WriteString("# Results\n\n" + how + "\n")
	dir := filepath.Dir(path)
	for _, r := range reports {
		r.markdown(&b)
		if err := removePictures(dir, r.Kind); err != nil {
			return fmt.Errorf("bench: markdown: %w", err)
		}
		for _, pic := range r.pictures() {
			name := r.Kind + "-" + pic.name + ".svg"
			if err := renameio.WriteFile(filepath.Join(dir, name), []byte(pic.svg), 0o644); err != nil {
				return fmt.Errorf("bench: markdown: %w", err)
			}
			fmt.Fprintf(&b, "\n![%s](%s)\n", pic.name, name)
		}
	}
	if err := renameio.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("bench: markdown: %w", err)
	}
	return nil
}

// markdown writes the tables of a report.
func (r *Report) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n", titles[r.Kind])
	for _, f := range r.facts() {
		fmt.Fprintf(b, "- %s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintf(b, "- Command: `%s`\n", strings.Join(r.Command, " "))
	for _, t := range r.Targets {
		fmt.Fprintf(b, "- `%s`: %s\n", t.Name, t.What)
	}
	for _, s := range r.sections() {
		fmt.Fprintf(b, "\n### %s\n\n%s\n\n", s.Title, s.Note)
		markdownTable(b, s.Rows)
	}
	for _, f := range r.Failures() {
		fmt.Fprintf(b, "\n**Failed**: %s\n", f)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(b, "\n%s\n", n)
	}
}

func markdownTable(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		b.WriteString("| " + strings.ReplaceAll(strings.Join(row, " | "), "\n", " ") + " |\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
}

// removePictures removes those of an earlier report, so that none is left that
// nobody shows.
func removePictures(dir, kind string) error {
	old, err := filepath.Glob(filepath.Join(dir, kind+"-*.svg"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}
