//! A schedule in Zig: the log-SNR falls on a straight line, alpha^2 + sigma^2 = 1 (Kingma et al. 2021, section 3.2, whose
//! learned line is here one of two given ends). `sconce_plugin` is the header, translated by `zig translate-c`.
const std = @import("std");
const c = @import("sconce_plugin");

const Line = struct { start: f64 = 10.0, end: f64 = -10.0 };

const alloc = std.heap.c_allocator;
var program: *const c.SconceHost = undefined;

fn str(text: []const u8) c.SconceStr {
    return .{ .bytes = text.ptr, .length = text.len };
}

fn of(handle: ?*anyopaque) *Line {
    return @ptrCast(@alignCast(handle));
}

fn at(handle: ?*anyopaque, n: usize, t: [*c]const f64, out: [*c]c.SconceNoise, _: [*c]const c.SconceError) callconv(.c) c.SconceStatus {
    const line = of(handle).*;
    const slope = line.end - line.start;
    for (t[0..n], out[0..n]) |time, *noise| {
        const log_snr = line.start + slope * std.math.clamp(time, 0.0, 1.0);
        const alpha = @sqrt(1.0 / (1.0 + @exp(-log_snr)));
        const sigma = @sqrt(1.0 / (1.0 + @exp(log_snr)));
        // d alpha^2/d lambda = alpha^2 sigma^2, and sigma^2 is what is left of 1.
        noise.* = .{
            .alpha = alpha,
            .sigma = sigma,
            .d_alpha = 0.5 * slope * alpha * sigma * sigma,
            .d_sigma = -0.5 * slope * sigma * alpha * alpha,
        };
    }
    return c.SCONCE_OK;
}

fn tOf(handle: ?*anyopaque, n: usize, log_snr: [*c]const f64, out: [*c]f64, _: [*c]const c.SconceError) callconv(.c) c.SconceStatus {
    const line = of(handle).*;
    for (log_snr[0..n], out[0..n]) |lambda, *t| {
        t.* = std.math.clamp((line.start - lambda) / (line.start - line.end), 0.0, 1.0);
    }
    return c.SCONCE_OK;
}

fn build(_: [*c]const c.SconcePlugin, params: c.SconceStr, handle: [*c]?*anyopaque, resolved: [*c]const c.SconceText, err: [*c]const c.SconceError) callconv(.c) c.SconceStatus {
    const names = [_]c.SconceStr{ str("start"), str("end") };
    var line = Line{};
    var status = program.only.?(params, names.len, &names, err);
    if (status == c.SCONCE_OK) status = program.number.?(params, names[0], &line.start, err);
    if (status == c.SCONCE_OK) status = program.number.?(params, names[1], &line.end, err);
    if (status != c.SCONCE_OK) return status;
    // At 60 the smaller of alpha and sigma is 1e-13.
    if (!(60.0 >= line.start and line.start > line.end and line.end >= -60.0)) {
        err.*.field.?(err.*.context, names[1]);
        err.*.help.?(err.*.context, str("10 and -10 reach from hardly any noise to hardly any signal"));
        return c.sconce_fail(err, "must be below `start`, and both between 60 and -60");
    }
    const kept = alloc.create(Line) catch return c.sconce_fail(err, "there is no memory");
    kept.* = line;
    handle.* = kept;
    var room: [128]u8 = undefined;
    const text = std.fmt.bufPrint(&room, "{{\"start\": {e}, \"end\": {e}}}", .{ line.start, line.end }) catch
        return c.sconce_fail(err, "the bounds have too many digits");
    resolved.*.put.?(resolved.*.context, str(text));
    return c.SCONCE_OK;
}

fn drop(handle: ?*anyopaque) callconv(.c) void {
    alloc.destroy(of(handle));
}

const schema =
    \\{"description": "The log-SNR falls on a straight line from `start` to `end`, with alpha² + sigma² = 1.",
    \\ "type": "object", "additionalProperties": false, "properties": {
    \\  "start": {"description": "The log-SNR at t = 0.", "type": "number", "default": 10.0},
    \\  "end": {"description": "The log-SNR at t = 1.", "type": "number", "default": -10.0}}}
;

const functions = c.SconceSchedule{ .size = @sizeOf(c.SconceSchedule), .drop = drop, .at = at, .t_of = tOf };

const plugin = c.SconcePlugin{
    .size = @sizeOf(c.SconcePlugin),
    .kind = str("schedule"),
    .name = str("log-snr-linear"),
    .schema = str(schema),
    .table = &functions,
    .build = build,
};

const plugins = [_][*c]const c.SconcePlugin{&plugin};

const library = c.SconceLibrary{
    .size = @sizeOf(c.SconceLibrary),
    .abi_major = c.SCONCE_ABI_MAJOR,
    .abi_minor = c.SCONCE_ABI_MINOR,
    .sdk = str("sconce_plugin.h 1.0"),
    .name = str("log-snr-linear"),
    .version = str("0.1.0"),
    .plugins = &plugins,
    .n_plugins = plugins.len,
};

export fn sconce_plugin(host: [*c]const c.SconceHost, _: [*c]const c.SconceError) [*c]const c.SconceLibrary {
    program = host;
    return &library;
}
