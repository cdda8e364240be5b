package route

import "context"

// Clear takes away every route of ours, and says whether there was one.
func Clear(ctx context.Context) (there bool, err error) {
	r, err := Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	bans, err := r.Existing(ctx)
	for i := 0; err == nil && i < len(bans); i++ {
		err = r.Unban(ctx, bans[i])
	}
	return len(bans) > 0, err
}
