import ai.djl.Model;
import ai.djl.inference.Predictor;
import ai.djl.ndarray.NDArray;
import ai.djl.ndarray.NDList;
import ai.djl.ndarray.NDManager;
import ai.djl.ndarray.types.DataType;
import ai.djl.ndarray.types.Shape;
import ai.djl.translate.NoopTranslator;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * RunTorchScript WEIGHTS FOLDER: runs a module on the CPU three times, as deepImageJ and QuPath do.
 *
 * <p>The files in FOLDER are those of RunOnnx.java; the module gets the inputs in their order, and outputs.txt has three lines.
 */
public class RunTorchScript {
    private static final int RUNS = 3; // the first two are observed and compiled

    public static void main(String[] args) throws Exception {
        Path weights = Path.of(args[0]);
        Path folder = Path.of(args[1]);
        List<String> shapes = Files.readAllLines(folder.resolve("inputs.txt"));
        List<String> lines = new ArrayList<>();
        try (Model model = Model.newInstance("weights", "PyTorch"); NDManager manager = model.getNDManager().newSubManager()) {
            model.load(weights.getParent(), weights.getFileName().toString());
            try (Predictor<NDList, NDList> predictor = model.newPredictor(new NoopTranslator())) {
                for (int run = 0; run < RUNS; run++) {
                    List<String> found = new ArrayList<>();
                    for (NDArray output : predictor.predict(inputs(folder, shapes, manager))) {
                        if (output.getDataType() != DataType.FLOAT32) {
                            throw new IllegalStateException("expected float32 outputs, found " + output.getDataType());
                        }
                        float[] numbers = output.toFloatArray();
                        ByteBuffer bytes = ByteBuffer.allocate(4 * numbers.length).order(ByteOrder.LITTLE_ENDIAN);
                        bytes.asFloatBuffer().put(numbers);
                        Files.write(folder.resolve("output." + run + "." + found.size()), bytes.array());
                        found.add(Arrays.toString(output.getShape().getShape()));
                    }
                    lines.add(found.toString());
                }
            }
        }
        Files.write(folder.resolve("outputs.txt"), lines);
    }

    private static NDList inputs(Path folder, List<String> shapes, NDManager manager) throws Exception {
        NDList inputs = new NDList();
        for (int n = 0; n < shapes.size(); n++) {
            Shape shape = new Shape(Arrays.stream(shapes.get(n).split(",")).mapToLong(Long::parseLong).toArray());
            float[] numbers = new float[(int) shape.size()];
            ByteBuffer.wrap(Files.readAllBytes(folder.resolve("input." + n))).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(numbers);
            inputs.add(manager.create(numbers, shape));
        }
        return inputs;
    }
}
