// What the commands for Appose share: a warm worker, images in shared memory, progress in the status bar, Esc cancels.
// Loaded by the scripts in scripts/Plugins/ForestBridge; it is no command itself.

import ij.CompositeImage
import ij.IJ
import ij.ImagePlus
import ij.ImageStack
import ij.Prefs
import ij.WindowManager
import ij.measure.ResultsTable
import ij.plugin.frame.RoiManager
import ij.process.ByteProcessor
import ij.process.FloatProcessor
import ij.process.ImageProcessor
import ij.process.LUT
import ij.process.ShortProcessor
import java.awt.Color
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.regex.Pattern
import org.apposed.appose.Appose
import org.apposed.appose.NDArray

class ForestBridge {

    static final Map TYPES = [8: NDArray.DType.UINT8, 16: NDArray.DType.UINT16, 32: NDArray.DType.FLOAT32, 24: NDArray.DType.UINT8]

    /** Where this file is. */
    File folder

    /** The message of a call that failed; shown by `guarded`. */
    static class Failed extends RuntimeException {
        Failed(String message) { super(message) }
    }

    /** Do a command's work; an error stops the macro that called, with its message. Returns what the work returns. */
    Object guarded(Closure work) {
        try {
            return work()
        } catch (Failed e) {
            IJ.showProgress(1.0)
            IJ.error("ForestBridge", e.message) // only an error with a title stops the macro that called
        } finally {
            WindowManager.setTempCurrentImage(null) // else a later call finds a closed image
        }
        return null
    }

    /** Return the image with a title; the active one for an empty title. */
    ImagePlus image(String title) {
        if (WindowManager.imageCount == 0 && WindowManager.currentImage == null)
            throw new Failed("expected an open image, found none; open one first")
        if (!title) return WindowManager.currentImage
        ImagePlus found = WindowManager.getImage(title)
        if (found == null)
            throw new Failed("expected an open image named " + title + ", found: " + WindowManager.imageTitles.join(", "))
        return found
    }

    /** Return the Python of forestbridge: what FB Configure was told, else what "forestbridge fiji install" wrote. */
    File python() {
        String path = Prefs.get("forestbridge.python", "")
        File written = new File(folder, "python.txt")
        if (!path && written.exists()) path = written.getText("UTF-8").trim()
        if (!path)
            throw new Failed("expected to know the Python of forestbridge, found none; say where it is with Plugins > ForestBridge > FB Configure")
        File file = new File(path)
        if (!file.exists()) throw new Failed("expected a Python at " + path + ", found none; choose it with FB Configure")
        return file
    }

    /** Return the worker, a new one if there is none. It belongs to this Fiji and ends with it. */
    synchronized Object service() {
        File python = python()
        String key = "forestbridge.service:" + python
        def service = System.getProperties().get(key)
        if (service == null || !service.isAlive()) {
            File folder = python.getParentFile()
            // The folder as it is: to wrap it would have Appose fetch a package manager.
            service = Appose.custom().base(folder.getParentFile() ?: folder).binPaths(folder.getPath()).build().python()
            service.init("import numpy\nfrom forestbridge.fiji import shared")
            System.getProperties().put(key, service)
        }
        return service
    }

    /** Run a line of Python that returns a dict, and return the dict. Names of inputs are names in the line. */
    Map ask(String line, Map inputs) {
        def service = service()
        def task = service.task("from forestbridge.fiji import shared\nshared.guarded(lambda: " + line + ")", inputs)
        IJ.resetEscape()
        task.listen { event ->
            if (event.responseType.name() != "UPDATE") return
            if (event.maximum > 0) IJ.showProgress((int) event.current, (int) event.maximum)
            if (event.message) IJ.showStatus("ForestBridge: " + event.message + " (Esc ends it)")
            if (IJ.escapePressed()) task.cancel()
        }
        String error = null
        try {
            task.waitFor()
            error = task.error
        } catch (Exception e) { // newer versions of Appose throw what older ones only note
            error = task.error ?: e.message ?: e.toString()
        }
        IJ.showProgress(1.0)
        IJ.showStatus("")
        if (task.status.name() != "COMPLETE") {
            if (!service.isAlive())
                throw new Failed("expected the worker to finish, found that it ended in the middle of this call; call again. It said: " + (service.errorLines() ?: ["nothing"]).last())
            IJ.log(error ?: "the task ended as " + task.status)
            throw new Failed((error ?: task.status.toString()).readLines().findAll { it.trim() }.last())
        }
        if (task.outputs.cancelled) throw new Failed("cancelled")
        if (task.outputs.error) throw new Failed((String) task.outputs.error)
        return task.outputs
    }

    /** Do work with an image in shared memory, (T, Z, C, Y, X); the memory is given back afterwards. */
    Object withPixels(ImagePlus imp, Closure work) {
        boolean rgb = imp.getBitDepth() == 24
        def type = TYPES[imp.getBitDepth()]
        def array = share(type, imp.getNFrames(), imp.getNSlices(), rgb ? 3 : imp.getNChannels(), imp.getHeight(), imp.getWidth())
        try {
            ByteBuffer buffer = array.buffer().order(ByteOrder.nativeOrder())
            int n = imp.getWidth() * imp.getHeight()
            for (int i = 1; i <= imp.getStackSize(); i++) {
                def pixels = imp.getStack().getPixels(i)
                int start = (i - 1) * n * (rgb ? 3 : 1)
                if (rgb) {
                    byte[] red = new byte[n], green = new byte[n], blue = new byte[n]
                    ((ij.process.ColorProcessor) imp.getStack().getProcessor(i)).getRGB(red, green, blue)
                    buffer.position(start)
                    buffer.put(red).put(green).put(blue)
                } else put(buffer, type, pixels, start)
            }
            return work(array)
        } finally {
            array.close()
        }
    }

    /** Make an array in shared memory. */
    NDArray share(NDArray.DType type, int... shape) {
        return new NDArray(type, new NDArray.Shape(NDArray.Shape.Order.C_ORDER, shape))
    }

    private static void put(ByteBuffer buffer, NDArray.DType type, Object pixels, int start) {
        switch (type) {
            case NDArray.DType.UINT8: buffer.position(start); buffer.put((byte[]) pixels); break
            case NDArray.DType.UINT16: buffer.asShortBuffer().position(start).put((short[]) pixels); break
            default: buffer.asFloatBuffer().position(start).put((float[]) pixels)
        }
    }

    /** Return an image with the planes of an array (T, Z, K, Y, X), as many channels as K, calibrated like another image. */
    ImagePlus imageOf(NDArray array, String title, ImagePlus like, List<String> names) {
        int[] shape = (0..4).collect { array.shape().get(it) } as int[]
        int n = shape[3] * shape[4]
        ByteBuffer buffer = array.buffer().order(ByteOrder.nativeOrder())
        ImageStack stack = new ImageStack(shape[4], shape[3])
        for (int i = 0; i < shape[0] * shape[1] * shape[2]; i++)
            stack.addSlice(names ? names[i % names.size()] : null, plane(buffer, array.dType(), i * n, shape[4], shape[3]))
        ImagePlus result = new ImagePlus(title, stack)
        result.setDimensions(shape[2], shape[1], shape[0])
        result.setOpenAsHyperStack(stack.getSize() > 1)
        result.setCalibration(like.getCalibration().copy())
        return result
    }

    private static ImageProcessor plane(ByteBuffer buffer, NDArray.DType type, int start, int width, int height) {
        int n = width * height
        switch (type) {
            case NDArray.DType.UINT8:
                byte[] bytes = new byte[n]
                buffer.position(start)
                buffer.get(bytes)
                return new ByteProcessor(width, height, bytes)
            case NDArray.DType.UINT16:
                short[] shorts = new short[n]
                buffer.asShortBuffer().position(start).get(shorts)
                return new ShortProcessor(width, height, shorts, null)
            default:
                float[] floats = new float[n]
                buffer.asFloatBuffer().position(start).get(floats)
                return new FloatProcessor(width, height, floats)
        }
    }

    /** Give labels the colours of their classes: label k is shown in colour k of the table. */
    void colour(ImagePlus labels, List values, List colours) {
        if (labels.getBitDepth() != 8) return
        byte[] red = new byte[256], green = new byte[256], blue = new byte[256]
        for (int k = 0; k < values.size(); k++) {
            Color c = Color.decode((String) colours[k])
            int v = (int) values[k]
            red[v] = (byte) c.red; green[v] = (byte) c.green; blue[v] = (byte) c.blue
        }
        labels.setLut(new LUT(red, green, blue))
        labels.setDisplayRange(0, 255)
    }

    /** Show a result; in a macro it is open then, and active. */
    ImagePlus show(ImagePlus result) {
        result.show()
        return result
    }

    /** FB Segment With Package. */
    ImagePlus segment(Map p) {
        return (ImagePlus) guarded {
            if (!p.model) throw new Failed("expected model= with the path of a package (.zip), forest (.forest) or ilastik project (.ilp), found none")
            ImagePlus imp = image(p.input)
            Map model = [model: p.model, device: p.device]
            Map classes = ask("shared.describe(model=model, device=device)", model)
            boolean probabilities = p.output == "Probabilities"
            boolean labels = p.output == "Segmentation"
            def type = labels ? NDArray.DType.fromLabel((String) classes.dtype) : NDArray.DType.FLOAT32
            int channels = probabilities ? classes.values.size() : 1
            def result = share(type, imp.getNFrames(), imp.getNSlices(), channels, imp.getHeight(), imp.getWidth())
            try {
                Map done = (Map) withPixels(imp) { pixels ->
                    ask("shared.segment(task, pixels, result, model=model, output=output, device=device, tile=tile, title=title)",
                        [pixels: pixels, result: result, output: p.output, tile: p.tile, title: imp.getTitle()] + model)
                }
                String name = ((String) p.output).toLowerCase(Locale.US) + " of " + imp.getTitle()
                ImagePlus shown = imageOf(result, name, imp, probabilities ? (List<String>) classes.names : null)
                if (labels) colour(shown, (List) classes.values, (List) classes.colours)
                else for (int c = 1; c <= channels; c++) { shown.setC(c); shown.setDisplayRange(0, 1) }
                shown.setC(1)
                shown.setProperty("forestbridge.seconds", done.seconds)
                return show(shown)
            } finally {
                result.close()
            }
        }
    }

    /** FB Train Forest. */
    Map train(Map p) {
        return (Map) guarded {
            if (!p.forest) throw new Failed("expected forest= with the path of the forest to write (NAME.forest), found none")
            ImagePlus imp = image(p.input)
            File regions = null
            if (!p.labels) {
                RoiManager manager = RoiManager.getInstance()
                if (manager == null || manager.getCount() == 0)
                    throw new Failed("expected regions in the ROI Manager, or a label image with labels=, found none; draw on the image and press t")
                regions = File.createTempFile("forestbridge-", ".zip")
                manager.deselect()
                manager.runCommand("Save", regions.getPath())
            }
            Map inputs = [regions: regions == null ? "" : regions.getPath(), forest: p.forest, preset: p.preset, trees: p.trees, volume: p.volume,
                overwrite: p.overwrite, title: imp.getTitle(), names: ((String) p.names ?: "").split(",").collect { it.trim() }.findAll { it }]
            String line = "shared.train_forest(pixels, labels, regions=regions, names=names, forest=forest, preset=preset, trees=trees, volume=volume, overwrite=overwrite, title=title)"
            try {
                Map report = (Map) withPixels(imp) { pixels ->
                    if (regions != null) return ask(line.replace("labels,", "None,"), inputs + [pixels: pixels])
                    return withPixels(image(p.labels)) { painted -> ask(line, inputs + [pixels: pixels, labels: painted]) }
                }
                IJ.log("ForestBridge: " + p.forest + ", " + report.trees + " trees from " + report.pixels + " pixels, out-of-bag accuracy "
                    + String.format(Locale.US, "%.4f", report.accuracy as double))
                return report
            } finally {
                if (regions != null) regions.delete()
            }
        }
    }

    /** FB Extract Features, those that are shown. */
    ImagePlus features(Map p) {
        return (ImagePlus) guarded {
            ImagePlus imp = image(p.input)
            int channels = imp.getBitDepth() == 24 ? 3 : imp.getNChannels()
            Map settings = [encoder: p.encoder ?: "filters", like: p.like ?: "", volume: p.volume]
            List<String> names = (List<String>) ask("shared.feature_names(encoder=encoder, like=like, channels=channels, volume=volume)", settings + [channels: channels]).names
            def result = share(NDArray.DType.FLOAT32, imp.getNFrames(), imp.getNSlices(), names.size(), imp.getHeight(), imp.getWidth())
            try {
                withPixels(imp) { pixels ->
                    ask("shared.show_features(task, pixels, result, encoder=encoder, like=like, volume=volume, title=title)",
                        settings + [pixels: pixels, result: result, title: imp.getTitle()])
                }
                return show(imageOf(result, "features of " + imp.getTitle(), imp, names))
            } finally {
                result.close()
            }
        }
    }

    /** FB Quality Check. */
    Map quality(Map p) {
        return (Map) guarded {
            ImagePlus imp = image(p.input)
            Map report = (Map) withPixels(imp) { pixels -> ask("shared.check_quality(task, pixels, title=title)", [pixels: pixels, title: imp.getTitle()]) }
            ResultsTable table = new ResultsTable()
            for (Map row : (List<Map>) report.rows) {
                table.incrementCounter()
                row.each { name, value -> table.addValue((String) name, value instanceof Number ? ((Number) value).doubleValue() : Double.NaN) }
            }
            table.show("quality of " + imp.getTitle())
            IJ.log("ForestBridge: " + imp.getTitle() + ": " + report.verdict)
            for (String reason : (List<String>) report.reasons) IJ.log("    " + reason)
            return report
        }
    }

    /** FB Segment Folder. */
    Map segmentFolder(Map p) {
        return (Map) guarded {
            if (!p.model || !p.folder || !p.destination) throw new Failed("expected model=, folder= and destination=, found one of them empty")
            Map report = ask("shared.segment_folder(task, model=model, folder=folder, destination=destination, output=output, pattern=pattern, device=device, tile=tile, overwrite=overwrite)",
                [model: p.model, folder: p.folder, destination: p.destination, output: p.output, pattern: p.filter ?: "", device: p.device, tile: p.tile, overwrite: p.overwrite])
            IJ.log("ForestBridge: " + report.written + " images segmented into " + p.destination)
            List failed = (List) report.failed
            for (String message : failed) IJ.log("    " + message)
            if (failed) throw new Failed(report.written + " of " + (failed.size() + (int) report.written) + " done, not done: " + failed[0])
            return report
        }
    }

    /** FB Export Package. */
    Map export(Map p) {
        return (Map) guarded {
            if (!p.forest || !p.package) throw new Failed("expected forest= (a file .forest or .ilp) and package= (the file .zip to write), found one of them empty")
            List authors = ((String) p.author ?: "").split(",").collect { it.trim() }.findAll { it }
            Map inputs = [forest: p.forest, package_: p.package, name: p.name ?: "", authors: authors, license_: p.license, overwrite: p.overwrite]
            String line = "shared.export_package(pixels, forest=forest, package=package_, name=name, authors=authors, license=license_, overwrite=overwrite, title=title)"
            if (!p.input) ask(line.replace("(pixels", "(None"), inputs + [title: ""])
            else {
                ImagePlus imp = image(p.input)
                withPixels(imp) { pixels -> ask(line, inputs + [pixels: pixels, title: imp.getTitle()]) }
            }
            IJ.log("ForestBridge: wrote " + p.package)
            return [package: p.package]
        }
    }

    /** FB Open Example. */
    ImagePlus example(Map p) {
        return (ImagePlus) guarded {
            File made = java.nio.file.Files.createTempDirectory("forestbridge-").toFile()
            try {
                Map paths = ask("shared.make_example(name=name, folder=folder)", [name: p.example, folder: made.getPath()])
                ImagePlus labels = IJ.openImage((String) paths.labels)
                labels.setTitle("labels of " + p.example + ".tif")
                labels.show()
                return show(IJ.openImage((String) paths.image))
            } finally {
                made.listFiles().each { it.delete() }
                made.delete()
            }
        }
    }
}
